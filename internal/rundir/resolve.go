//go:build unix

package rundir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// family is the directory that Baton's own runtime directories share, where
// nobody named one.
const family = "baton"

// maxSocketPath is the longest path that a unix socket can be bound to: 107
// bytes on Linux, 103 on the BSDs, and a NUL.
const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// maxName bounds the executable's part of a directory name, which would
// otherwise use up the socket's path.
const maxName = 32

// Resolve chooses the runtime directory without making it, the first of:
//
//   - explicit, if not empty; relative to the working directory
//   - the first directory of $RUNTIME_DIRECTORY, which systemd sets
//   - $XDG_RUNTIME_DIR/baton/NAME, if that variable names a directory of uid:
//     su and sudo leave the one of another user behind, cron leaves none
//   - /run/baton/NAME for root (/var/run/baton/NAME where there is no /run)
//   - $TMPDIR/baton-UID/NAME, or under /tmp where $TMPDIR is unset or too long
//     for a socket's path
//
// NAME is the base of exe and a hash of listenerKeys, whatever their order: it
// stays the same from one build of a service to the next, and differs between
// two services that can run at the same time.
func Resolve(explicit, exe string, listenerKeys []string, getenv func(string) string, uid int) (string, error) {
	if explicit != "" {
		p, err := filepath.Abs(explicit)
		if err != nil {
			return "", fmt.Errorf("runtime directory %s: %w", explicit, err)
		}
		return p, nil
	}
	if p := FromEnv(getenv); p != "" {
		if !filepath.IsAbs(p) {
			return "", fmt.Errorf("runtime directory: $RUNTIME_DIRECTORY is %q, expected an absolute path", p)
		}
		return filepath.Clean(p), nil
	}
	name, err := dirName(exe, listenerKeys)
	if err != nil {
		return "", err
	}
	for _, parent := range parents(getenv, uid) {
		p := filepath.Join(parent, name)
		if len(SocketPath(p)) <= maxSocketPath {
			return p, nil
		}
	}
	return "", fmt.Errorf("runtime directory: no default place is short enough for %s; set one", name)
}

// dirName is NAME above.
func dirName(exe string, listenerKeys []string) (string, error) {
	base := filepath.Base(exe)
	if exe == "" || base == "." || base == ".." || base == "/" {
		return "", fmt.Errorf("runtime directory: the executable is %q, expected a file name", exe)
	}
	base = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return '_'
	}, base)
	if len(base) > maxName {
		base = base[:maxName]
	}
	keys := slices.Sorted(slices.Values(listenerKeys))
	h := sha256.New()
	for _, k := range keys {
		// The length keeps ("a", "bc") and ("ab", "c") apart.
		fmt.Fprintf(h, "%d:%s", len(k), k)
	}
	return base + "-" + hex.EncodeToString(h.Sum(nil)[:4]), nil
}

// parents are the default places in the order in which they are tried.
func parents(getenv func(string) string, uid int) []string {
	var ps []string
	if x := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(x) && ownedBy(x, uid) {
		ps = append(ps, filepath.Join(x, family))
	}
	if uid == 0 {
		return append(ps, filepath.Join(SystemRun, family))
	}
	own := familyOf(uid)
	if t := getenv("TMPDIR"); filepath.IsAbs(t) && filepath.Clean(t) != "/tmp" {
		ps = append(ps, filepath.Join(t, own))
	}
	return append(ps, filepath.Join("/tmp", own))
}

// familyOf is the family directory of a user in a place that all users share.
func familyOf(uid int) string { return family + "-" + strconv.Itoa(uid) }

// SystemRun is what root has its runtime directories in. Tests of others than this
// package set it, lest they find what the machine runs.
var SystemRun = systemRun()

func systemRun() string {
	if runtime.GOOS == "linux" {
		return "/run"
	}
	return "/var/run"
}

func ownedBy(path string, uid int) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir() && owner(fi) == uid
}

func owner(fi fs.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// Candidates lists the runtime directories in the default places that hold a
// control socket and belong to uid or to root, in the order of Resolve. A
// directory that another user made in /tmp is not among them: whoever talks to a
// socket there would be told a story.
func Candidates(getenv func(string) string, uid int) []string {
	places := parents(getenv, uid)
	if uid != 0 {
		// A service of root's is listed for those whom its owner lets see it.
		places = append(places, filepath.Join(SystemRun, family))
	}
	var found []string
	for _, parent := range places {
		if !trusted(parent, uid) {
			continue
		}
		entries, err := os.ReadDir(parent)
		if err != nil {
			continue
		}
		for _, e := range entries {
			p := filepath.Join(parent, e.Name())
			fi, err := os.Lstat(SocketPath(p))
			if err == nil && fi.Mode().Type() == fs.ModeSocket && trusted(p, uid) && !slices.Contains(found, p) {
				found = append(found, p)
			}
		}
	}
	return found
}

func trusted(dir string, uid int) bool {
	fi, err := os.Lstat(dir)
	if err != nil || !fi.IsDir() || fi.Mode()&0o022 != 0 {
		return false
	}
	u := owner(fi)
	return u == uid || u == 0
}

// isFamily is whether dir is a directory of this package's own naming.
func isFamily(dir string, uid int) bool {
	base := filepath.Base(dir)
	return base == family || base == familyOf(uid)
}

var errTooLong = errors.New("too long for a unix socket")
