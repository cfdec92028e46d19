package upgrade

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"
)

// fileInit is the line to init, kept through all upgrades.
const fileInit = "baton/init"

// markedInit is the line that this process was started with, -1 for none.
var markedInit = -1

func init() {
	value, ok := os.LookupEnv(initEnv)
	if !ok {
		return
	}
	os.Unsetenv(initEnv)
	// A marker alone means nothing: it may have come down from a grandparent.
	fd, err := strconv.Atoi(value)
	if err != nil || fd <= 2 {
		return
	}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || typ != unix.SOCK_SEQPACKET {
		return
	}
	if maker, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil || int(maker.Pid) != os.Getppid() {
		return
	}
	syscall.CloseOnExec(fd)
	markedInit = fd
}

// Init is the way of a master to the init of its container. That one restarts
// a master that crashes, and passes signals on. A nil one can be used: it says
// nothing and hears nothing.
type Init struct {
	pid   int
	c     *net.UnixConn
	hears chan struct{} // closed when nothing more is heard
}

// findInit returns the init that started this process, or one before it, nil
// if there is none. It is kept for the next one.
func findInit(flip *tableflip.Upgrader) (*Init, error) {
	var f *os.File
	var err error
	if markedInit >= 0 {
		f = os.NewFile(uintptr(markedInit), "init")
		markedInit = -1
		err = flip.AddFile(fileInit, f)
	} else {
		f, err = flip.File(fileInit)
	}
	if f == nil {
		return nil, err
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("socket to init: %w", err)
	}
	c, err := unixConn(f)
	if err != nil {
		return nil, fmt.Errorf("socket to init: %w", err)
	}
	return &Init{c: c, pid: makerOf(c)}, nil
}

// makerOf is the pid of the process that made a pair of sockets.
func makerOf(c *net.UnixConn) (pid int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// Tell tells init. From NoticeHello on this process gets the signals that were
// sent to init, those before it included, so it must have caught them. After
// NoticeReplaced it gets no more, and those it got are in the channels that it
// gave to signal.Notify: they have to be passed on.
func (i *Init) Tell(n Notice) {
	if i == nil {
		return
	}
	if n == NoticeReplaced && i.hears != nil {
		// What is not read here is the new master's.
		_ = i.c.SetReadDeadline(time.Now())
		<-i.hears
		settleSignals()
	}
	_ = i.c.SetWriteDeadline(time.Now().Add(stepTimeout)) // it reads at all times
	_, _ = i.c.Write([]byte{lineVersion, byte(n), 0})
	switch n {
	case NoticeHello:
		i.hears = make(chan struct{})
		go i.listen()
	case NoticeReplaced:
		_ = i.c.Close() // init must see when nobody is left
	}
}

// listen makes signals of the messages that are: the application may have
// caught them, too.
func (i *Init) listen() {
	defer close(i.hears)
	// A signal to this very thread has been handled when the call returns.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		b := make([]byte, lineSize)
		n, err := i.c.Read(b)
		if err != nil || n == 0 {
			return
		}
		if n == lineSize && b[0] == lineVersion && b[1] == lineSignal {
			_ = unix.Tgkill(os.Getpid(), unix.Gettid(), syscall.Signal(b[2]))
		}
	}
}

// settleSignals returns when the signals that this process has got are in the
// channels for them: that is what Stop waits for.
func settleSignals() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	signal.Stop(c)
}

// adoptionTime bounds Adopted.
const adoptionTime = 2 * time.Second

// Adopted waits until init is the parent of this process, which is when the
// master before, told that it was replaced, has exited: who ends earlier leaves
// its exit status to that one.
func (i *Init) Adopted() {
	if i == nil {
		return
	}
	for late := time.Now().Add(adoptionTime); os.Getppid() != i.pid && time.Now().Before(late); {
		time.Sleep(time.Millisecond)
	}
}
