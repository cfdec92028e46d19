package listener

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// rotation is the part of a group that the kernel runs: a program that is asked
// for each new connection which of the sockets at its address shall have it.
//
// Sockets and order are apart. What is to be taken in turn is a map of its own
// that is never changed once the program can see it, but for the turn itself:
//
//	turn   uint64           how many connections it has had
//	count  uint32, padding  how many slots are live
//	slots  [MaxSlots]uint32 which
//
// sets holds the one that is in force. Another takes its place by an exchange of
// one pointer, so that the program sees the whole of the old or the whole of the
// new, and the update returns when no run of the program has the old one any more
// (kernel/bpf/syscall.c, maybe_wait_bpf_programs).
type rotation struct {
	sockets *ebpf.Map // slot → socket
	sets    *ebpf.Map // 0 → the turn that is in force
	prog    *ebpf.Program
	inForce *ebpf.Map
}

const (
	offCount = 8
	offSlots = 16
	turnSize = offSlots + 4*MaxSlots
)

func turnSpec() *ebpf.MapSpec {
	return &ebpf.MapSpec{Name: "baton_turn", Type: ebpf.Array, KeySize: 4, ValueSize: turnSize, MaxEntries: 1}
}

// newRotation needs no socket yet, and so is the probe, too.
func newRotation() (*rotation, error) {
	r := &rotation{}
	if err := r.load(); err != nil {
		r.close()
		return nil, explain(err)
	}
	return r, nil
}

func (r *rotation) load() (err error) {
	if r.sockets, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "baton_sockets", Type: ebpf.ReusePortSockArray, KeySize: 4, ValueSize: 8, MaxEntries: MaxSlots,
	}); err != nil {
		return err
	}
	if r.sets, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "baton_sets", Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: turnSpec(),
	}); err != nil {
		return err
	}
	r.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "baton_turn", Type: ebpf.SkReuseport, License: "MIT", Instructions: r.instructions(),
	})
	return err
}

// instructions take the next of the live slots. Whatever does not work out, no
// live slot or one without a socket, leaves the choice to the kernel's hash.
func (r *rotation) instructions() asm.Instructions {
	const key = -4
	// The package's own FetchAdd leaves the bit out that asks for the old
	// value, and every connection would have the same turn.
	fetchAdd := asm.FetchAdd.Mem(asm.R7, asm.R1, asm.DWord, 0)
	fetchAdd.Constant = unix.BPF_FETCH
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),

		asm.StoreImm(asm.RFP, key, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, r.sets.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, key),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),

		asm.Mov.Reg(asm.R1, asm.R0),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, key),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Reg(asm.R7, asm.R0),

		asm.LoadMem(asm.R2, asm.R7, offCount, asm.Word),
		asm.JEq.Imm(asm.R2, 0, "pass"),
		asm.Mov.Imm(asm.R1, 1),
		fetchAdd,
		asm.Mod.Reg(asm.R1, asm.R2),
		asm.JGE.Imm(asm.R1, MaxSlots, "pass"), // never: for the verifier
		asm.LSh.Imm(asm.R1, 2),
		asm.Add.Reg(asm.R7, asm.R1),
		asm.LoadMem(asm.R2, asm.R7, offSlots, asm.Word),
		asm.StoreMem(asm.RFP, key, asm.R2, asm.Word),

		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMapPtr(asm.R2, r.sockets.FD()),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, key),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnSkSelectReuseport.Call(),

		asm.Mov.Imm(asm.R0, skPass).WithSymbol("pass"),
		asm.Return(),
	}
}

// skPass is SK_PASS: the socket that was selected or, without one, the hash.
const skPass = 1

// explain says what is missing, as far as an error of the kernel tells.
func explain(err error) error {
	why := "a Linux kernel of 5.12 or later with CONFIG_BPF_SYSCALL"
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		why, err = "root, or CAP_BPF and CAP_NET_ADMIN", unix.EPERM // the rest of it points to other causes
	}
	return fmt.Errorf("%w: needs %s (here: Linux %s, user %d): %w", ErrNoGroup, why, release(), unix.Geteuid(), err)
}

func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "of an unknown version"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// otherGroup is how long to wait until a group of another process, whose program
// has just been detached, has let go of its sockets: the kernel clears up a grace
// period later.
const (
	otherGroup     = 2 * time.Second
	otherGroupStep = 2 * time.Millisecond
)

// put makes fd the socket of a slot. A socket is in one group at a time: if that
// is the one of a master before this one, it loses it.
func (r *rotation) put(slot int, fd uintptr) error {
	for deadline := time.Now().Add(otherGroup); ; time.Sleep(otherGroupStep) {
		err := r.sockets.Put(uint32(slot), uint64(fd))
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		_ = detach(fd)
	}
}

// swap puts slots into force. The turn goes on counting where it was.
func (r *rotation) swap(slots []int) error {
	value := make([]byte, turnSize)
	if r.inForce != nil {
		var old [turnSize]byte
		if err := r.inForce.Lookup(uint32(0), old[:]); err != nil {
			return err
		}
		copy(value, old[:offCount])
	}
	binary.NativeEndian.PutUint32(value[offCount:], uint32(len(slots)))
	for i, slot := range slots {
		binary.NativeEndian.PutUint32(value[offSlots+4*i:], uint32(slot))
	}
	next, err := ebpf.NewMap(turnSpec())
	if err != nil {
		return err
	}
	if err = next.Put(uint32(0), value); err == nil {
		err = r.sets.Put(uint32(0), next)
	}
	if err != nil {
		next.Close()
		return err
	}
	if r.inForce != nil {
		r.inForce.Close()
	}
	r.inForce = next
	return nil
}

// attach replaces, for the whole group of the socket, whatever program it had.
func (r *rotation) attach(fd uintptr) error {
	return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, r.prog.FD())
}

// detach leaves the group of a socket to the kernel's hash.
func detach(fd uintptr) error {
	err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) { // none attached, or alone
		return nil
	}
	return err
}

// close closes our descriptors. What is attached stays, for as long as a socket
// of the group lives.
func (r *rotation) close() {
	for _, m := range []*ebpf.Map{r.sockets, r.sets, r.inForce} {
		if m != nil {
			m.Close()
		}
	}
	if r.prog != nil {
		r.prog.Close()
	}
}
