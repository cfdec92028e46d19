package integration

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/baton-go/baton"

// arrows is what each package may import of ours; a trailing slash stands for
// all below. What is not listed may import nothing of ours.
var arrows = map[string][]string{
	"framework":               {"upgrade", "workers", "workers/dispatch", "listener", "internal/"},
	"upgrade":                 {"internal/fault"},
	"framework/frameworktest": {"framework", "listener"},
	"workers":                 {"workers/ipc", "workers/dispatch", "listener"},
	"cmd/batonctl":            {"internal/"},
	"integration/":            {"framework", "workers", "workers/dispatch", "listener", "internal/", "integration/"},
	"examples/":               {"framework", "framework/frameworktest", "listener", "workers", "workers/dispatch"},
}

func TestImportsFollowTheArrows(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	checked := 0
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		from := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module+"/")
			if ours && !allowed(from, to) {
				t.Errorf("%s imports %s, which is against the arrows", from, to)
			}
		}
		checked++
	}
	if checked < 10 {
		t.Errorf("go list named %d packages only", checked)
	}
}

func allowed(from, to string) bool {
	for pkg, may := range arrows {
		if from != pkg && !(strings.HasSuffix(pkg, "/") && strings.HasPrefix(from+"/", pkg)) {
			continue
		}
		if slices.ContainsFunc(may, func(m string) bool {
			return to == m || strings.HasSuffix(m, "/") && strings.HasPrefix(to, m)
		}) {
			return true
		}
	}
	return false
}
