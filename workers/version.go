package workers

import (
	"errors"
	"fmt"
)

// Two builds meet in a master and its workers, in two masters of which one
// replaces the other, and in a master and the workers and the record that one
// which was killed has left. What they say to each other has one version.
//
// What has to be understood before the version is known never changes: the frame
// of a message, the numbers of messages and states, how a worker is started, where
// versions are told; the nonce in the greeting, the introduction and the presence;
// and in the record who the workers are, and whether they serve. A build ignores
// fields that it does not know, and messages that it does not know of a build that
// speaks a later version.

const (
	// ProtocolVersion is the version that this build speaks. It rises with a
	// message that is new, with a field that others must not ignore and with an
	// option that a master must know.
	//
	// Version 2 has licences: see licence_unix.go.
	ProtocolVersion = 2

	// OldestProtocol is the oldest version that this build still speaks, with
	// processes of earlier releases. It rises long after ProtocolVersion: who
	// runs the release before can always come to this one, and back.
	OldestProtocol = 1
)

// Versions are those of the protocol that a build speaks, from Oldest to Newest.
type Versions struct {
	Newest int `json:"newest"`
	Oldest int `json:"oldest"`
}

// protocolClaim is set by the linker of test builds, which say that they speak
// other versions: -X github.com/baton-go/baton/workers.protocolClaim=1-2.
var protocolClaim string

var protocol = ownProtocol(protocolClaim)

func ownProtocol(claim string) Versions {
	v := Versions{Newest: ProtocolVersion, Oldest: OldestProtocol}
	if claim != "" {
		if _, err := fmt.Sscanf(claim, "%d-%d", &v.Oldest, &v.Newest); err != nil {
			panic(fmt.Sprintf("workers: protocolClaim %q: expected two versions as in 1-2", claim))
		}
	}
	return v
}

// Protocol returns what this build speaks.
func Protocol() Versions { return protocol }

// Meets says whether builds that speak v and o have a version in common.
func (v Versions) Meets(o Versions) bool {
	return v.Oldest <= v.Newest && o.Oldest <= o.Newest && v.Oldest <= o.Newest && o.Oldest <= v.Newest
}

func (v Versions) String() string {
	if v.Oldest == v.Newest {
		return fmt.Sprint(v.Newest)
	}
	return fmt.Sprintf("%d to %d", v.Oldest, v.Newest)
}

// ErrIncompatible is wrapped by errors about builds that have no version of the
// protocol in common. They name what each speaks.
var ErrIncompatible = errors.New("no version is common to both")
