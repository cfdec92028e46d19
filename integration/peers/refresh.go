//go:build linux

package peers

import (
	"bytes"
	"fmt"
	"os"
)

// Markers enclose the part of a file that Refresh replaces.
func Markers(name string) (begin, end string) {
	return "<!-- " + name + ":begin -->", "<!-- " + name + ":end -->"
}

// Refresh replaces what is between the markers in the file.
func Refresh(path, name, text string) error {
	begin, end := Markers(name)
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(old, []byte(begin))
	_, after, found := bytes.Cut(rest, []byte(end))
	if !ok || !found {
		return fmt.Errorf("%s: the markers %s and %s are missing", path, begin, end)
	}
	whole := string(before) + begin + "\n" + text + end + string(after)
	return os.WriteFile(path, []byte(whole), 0o666)
}
