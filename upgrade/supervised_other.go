//go:build unix && !linux

package upgrade

import "github.com/cloudflare/tableflip"

// Init is the init of a container. There are none here.
type Init struct{}

// Notice is what a master tells its init.
type Notice byte

// Notices.
const (
	NoticeHello Notice = iota
	NoticeServes
	NoticeStopping
	NoticeReplaced
)

func findInit(*tableflip.Upgrader) (*Init, error) { return nil, nil }

// Tell does nothing.
func (*Init) Tell(Notice) {}

// Adopted returns at once.
func (*Init) Adopted() {}
