//go:build unix

package ipc_test

import (
	"fmt"
	"os"

	"github.com/baton-go/baton/workers/ipc"
)

// Both ends in one process; usually the second is inherited by a child.
func Example() {
	master, f, err := ipc.Pair()
	if err != nil {
		panic(err)
	}
	defer master.Close()
	worker, err := ipc.NewConn(f)
	if err != nil {
		panic(err)
	}
	defer worker.Close()

	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	if err := master.TrySend(1, []byte("write here"), []int{int(w.Fd())}); err != nil {
		panic(err)
	}
	w.Close() // the worker has its own now

	frame, err := worker.Recv()
	if err != nil {
		panic(err)
	}
	pipe := os.NewFile(uintptr(frame.Files[0]), "pipe")
	fmt.Fprintf(pipe, "asked to %q", frame.Payload)
	pipe.Close()

	b := make([]byte, 64)
	n, _ := r.Read(b)
	r.Close()
	fmt.Println(string(b[:n]))
	// Output: asked to "write here"
}
