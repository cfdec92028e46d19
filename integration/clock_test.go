package integration

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// wallOnly are calls that make or leave a time without its monotonic clock. What
// is compared with one is off by as much as the clock of the machine is set.
var wallOnly = []string{"UTC", "Local", "In", "Truncate", "UnixNano", "UnixMilli", "UnixMicro", "Date", "Parse", "ParseInLocation"}

// written are the documents that have times in them: for people, who have clocks of
// their own, or with what the clocks said (see workers/clock_unix.go).
var written = map[string]string{
	"internal/control/status.go":     "for people",
	"workers/binary_unix.go":         "of a file",
	"workers/handoverrecord_unix.go": "with a reading",
	"workers/clock_unix.go":          "the reading",
}

// No deadline goes by the time of day, and no process tells another one a time
// without a reading of its clocks.
func TestNothingGoesByTheTimeOfDay(t *testing.T) {
	files := 0
	for _, dir := range []string{"framework", "workers", "upgrade", "listener", "internal"} {
		err := filepath.WalkDir(filepath.Join("..", dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "testcert") {
				return err
			}
			files++
			name := filepath.ToSlash(strings.TrimPrefix(path, ".."+string(filepath.Separator)))
			set := token.NewFileSet()
			f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					if what := callsTimeOfDay(n); what != "" && name != "workers/clock_unix.go" {
						t.Errorf("%s: %s", set.Position(n.Pos()), what)
					}
				case *ast.Field:
					if n.Tag != nil && strings.Contains(n.Tag.Value, "json:") && isTime(n.Type) && written[name] == "" {
						t.Errorf("%s: a time that is written down", set.Position(n.Pos()))
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 100 {
		t.Errorf("%d files only", files)
	}
}

func callsTimeOfDay(call *ast.CallExpr) string {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, _ := sel.X.(*ast.Ident)
	ofTime := x != nil && x.Name == "time"
	switch name := sel.Sel.Name; {
	case name == "Round" && len(call.Args) == 1 && isNumber(call.Args[0], 0):
		return "Round(0)"
	case name == "Unix" && ofTime && !isNumber(call.Args[0], 1): // time.Unix(1, 0) is long ago, whatever the clock says
		return "time.Unix"
	case name == "Unix" && len(call.Args) == 0:
		return "Unix"
	case slices.Contains(wallOnly, name) && (ofTime || len(call.Args) == 0):
		return name
	}
	return ""
}

func isNumber(e ast.Expr, n int) bool {
	lit, ok := e.(*ast.BasicLit)
	return ok && lit.Value == strconv.Itoa(n)
}

func isTime(e ast.Expr) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, _ := sel.X.(*ast.Ident)
	return x != nil && x.Name == "time" && sel.Sel.Name == "Time"
}
