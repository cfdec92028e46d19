package config

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func TestTrailerIsReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app")
	if err := os.WriteFile(path, []byte("an executable, say"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil {
		t.Error("a file without a trailer was read")
	}
	want := Config{
		Version: "v1", Workers: 3, Fail: Master + FailExit1, FailIf: "/flag", Serve: true,
		Listeners: []Listener{{"tcp", "127.0.0.1:0", "main"}},
		Options:   Options{DrainTimeout: new(time.Second), HangTimeout: new(time.Duration(0)), MaxDraining: new(2)},
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Append(f, want); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v; want %+v", got, err, want)
	}
}
