package framework

import "github.com/baton-go/baton/workers"

// There are no workers on Windows: Run serves in one process.

func runWorker(o *options, _ *workers.Mark, serve serveFunc) error { return runSingle(o, serve) }

func runMaster(o *options, serve serveFunc) error { return runSingle(o, serve) }
