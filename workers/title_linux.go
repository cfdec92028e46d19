package workers

import (
	"os"
	"path/filepath"
)

// setComm gives the process the name of the application: started through a
// link to an open file, it would be called by the number of that.
func setComm(argv0 string) {
	name := filepath.Base(argv0)
	if len(name) > 15 {
		name = name[:15]
	}
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0)
}
