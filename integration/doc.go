// Package integration tests the framework from outside: real binaries, real
// processes, clients that never retry (package load).
//
//	go test ./integration              the short tier
//	go test ./integration -long        the long one, also BATON_TEST_LONG=1
//	go test -race ./integration        the service under test is built with -race too
//
// A test starts a service, which is package testapp with a behaviour appended
// to its executable:
//
//	s := newService(t, appConfig{Version: "v1", Workers: 4})
//	cfg := s.cfg                  // as started, the listener filled in
//	cfg.Version = "v2"
//	s.install(cfg)                // mv of another release over the binary
//	if v := s.reload(); !v.OK { t.Fatal(v) }
//	if r := s.get("/version"); r.version != "v2" { ... }
//
// # Harness
//
//	newService(t, cfg, opts...)   starts, waits until it serves, stops it at the end of
//	                              the test; prints processes, status and log on failure
//	startService(t, cfg, opts...) the same without waiting: for what must not start
//	withEnv("NAME=value"...), withArgs(...), withApp(path)   opts
//	inContainer                   an opt: the service is PID 1 of a namespace; see container_test.go
//	s.addr, s.addrOf(name), s.dir, s.cfg, s.client (package control's), s.binary
//	s.install(cfg), s.installFile(path, mode), s.uninstall()
//	newRelease(t, this, ...), installRelease(s, next)   builds that claim other versions of
//	                              the protocol; see versions_test.go
//	s.signal(sig)                 to the current master; signalPID(t, pid, sig) to a worker
//	s.reload(), s.upgrade(), s.scale(n), s.stop()   the verdict, in at most a minute
//	s.status(), s.masterPID(), s.serving(), s.workers()
//	s.waitStatus(what, func(control.Status) bool) control.Status   in at most 10 s
//	s.waitStatusFor(bound, what, f)
//	s.waitLog(part), s.countLog(part)
//	s.exitCode()                  waits for the end of the last master and of all workers
//	s.waitProcesses(n)            in at most 10 s
//	s.killMaster(), s.restart(), s.crash()   a killed master, the next one, both
//	s.processes()                 every process of the service, zombies included
//	s.get(path), s.tryGet(path)   one request on a connection of its own
//	s.start(load.Config{...})     load against s.addr in the background; returns its end
//	talk(t, addr), talkHTTP(t, addr, text)   a session of the test application
//	checkLedger(t, status)        the sums of every generation
//	tier(short, long)             a value by tier
//	eventually(t, bound, what, f) the one place that polls
//
// Methods that return no error end the test when something goes wrong, so they
// are for the test's own goroutine. s.client, s.tryStatus and s.tryGet are for
// others.
//
// Under a real systemd, which the test boots in namespaces of its own:
//
//	h := newSystemdHost(t)        needs root and Debian's package systemd
//	a := h.newApp(cfg, "WatchdogSec=2s\n", "app.service", "app.socket")
//	                              units of examples/systemd, with the test's paths
//	h.must("systemctl", "start", a.unit), h.run(...), h.show(unit, property), h.journal()
//	a.upgrade(), a.mainPID(), a.waitMaster(before), a.status(), a.get(path), a.start(...)
//
// The service runs in a session of its own: that is how its processes are
// known after their master has gone. The test process is their subreaper.
package integration
