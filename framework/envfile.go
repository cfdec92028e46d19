package framework

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/joho/godotenv"
)

// maxEnvFile is more than any kernel takes as an environment by default.
const maxEnvFile = 1 << 20

// reservedNames begin the variables of whoever started the process and of the
// framework itself. A file that sets one would make a process believe in file
// descriptors that it does not have.
var reservedNames = []string{"_BATON_", "TABLEFLIP_", "LISTEN_", "NOTIFY_SOCKET"}

// envName leaves out the names that no shell could have exported. The dot is
// there because some tools use it.
var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)

// loadEnvFile returns base with the values of the file, which win. base is not
// changed, nor is the environment of the process. An empty path is no file.
//
// ${NAME} in a value stands for an earlier line of the same file only: what a
// file means does not depend on who starts the service.
//
// The error wraps ErrConfig and names the file and the reason, but never a
// value: env files hold secrets, errors end up in logs.
func loadEnvFile(path string, base environment) (environment, error) {
	env, problems := readEnvFile(path, base)
	if len(problems) == 0 {
		return env, nil
	}
	for i, p := range problems {
		problems[i] = fmt.Sprintf("EnvFile(%q): %s", path, p)
	}
	return nil, configError(problems)
}

// readEnvFile is loadEnvFile with the problems apart. It always returns an
// environment that can be checked further, so that all problems are found in
// one go.
func readEnvFile(path string, base environment) (environment, []string) {
	env := base.clone()
	if path == "" {
		return env, nil
	}
	text, err := readSmallFile(path)
	if err != nil {
		return env, []string{err.Error()}
	}
	values, err := godotenv.Parse(strings.NewReader(text))
	if err != nil {
		return env, []string{parseProblem(text, err)}
	}

	var problems []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if reason := refuseVariable(name, values[name]); reason != "" {
			problems = append(problems, reason)
			continue
		}
		env[name] = values[name]
	}
	return env, problems
}

// refuseVariable says why a variable may not come from a file, or "".
func refuseVariable(name, value string) string {
	if name == envFileVar.name {
		return name + ": a file cannot name another one: expected it in the environment"
	}
	for _, prefix := range reservedNames {
		if strings.HasPrefix(name, prefix) {
			return fmt.Sprintf("%s: names that begin with %s are reserved: expected another name", name, prefix)
		}
	}
	switch {
	case name == "":
		return "a line without NAME=: expected NAME=value"
	case !envName.MatchString(name):
		return fmt.Sprintf("%q is not a name: expected letters, digits, underscores and dots, no digit first", name)
	case strings.ContainsRune(value, 0):
		return name + ": a NUL byte in the value: expected text"
	}
	return ""
}

// readSmallFile takes regular files only: opening a named pipe could wait for
// ever, and could not be read anew by the next generation.
func readSmallFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", withoutPath(err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("not a regular file but %s: expected a file of NAME=value lines", info.Mode().Type())
	}
	f, err := os.Open(path)
	if err != nil {
		return "", withoutPath(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxEnvFile+1))
	if err != nil {
		return "", withoutPath(err)
	}
	if len(b) > maxEnvFile {
		return "", fmt.Errorf("larger than %d bytes: expected a file of NAME=value lines", maxEnvFile)
	}
	return strings.ReplaceAll(string(b), "\r\n", "\n"), nil
}

// withoutPath drops the path, which the caller puts first.
func withoutPath(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return fmt.Errorf("%s: %w", pe.Op, pe.Err)
	}
	return err
}

// parseProblem tells where the file is wrong without showing what is there:
// the parser's own text holds the rest of the file.
func parseProblem(text string, err error) string {
	msg := err.Error()
	if strings.HasPrefix(msg, "unterminated quoted value ") {
		return "a quoted value has no closing quote: expected NAME=value lines"
	}
	const near = " in variable name near "
	if i := strings.Index(msg, near); i >= 0 {
		rest, err := strconv.Unquote(msg[i+len(near):])
		if err == nil && strings.HasSuffix(text, rest) {
			line := 1 + strings.Count(text[:len(text)-len(rest)], "\n")
			return fmt.Sprintf("line %d has no name that could be a variable's: expected NAME=value", line)
		}
	}
	return "expected NAME=value lines"
}
