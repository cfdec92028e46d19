//go:build linux

package peers

import (
	"context"
	"debug/buildinfo"
	"os/exec"
	"regexp"

	"golang.org/x/sys/unix"
)

const unknownVersion = "of unknown version"

// Kernel is the release of the kernel.
func Kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return unknownVersion
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Said is what of a program's output matches the group of the pattern.
func Said(ctx context.Context, pattern, program string, args ...string) string {
	out, _ := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if m := regexp.MustCompile(pattern).FindSubmatch(out); m != nil {
		return string(m[1])
	}
	return unknownVersion
}

// ModuleVersion is that of a module which the binary has been built with.
func ModuleVersion(binary, module string) string {
	info, err := buildinfo.ReadFile(binary)
	if err == nil {
		for _, d := range info.Deps {
			if d.Path == module {
				return d.Version
			}
		}
	}
	return unknownVersion
}
