package listener

import (
	"os/user"
	"strconv"
	"strings"
)

// ownerIDs resolves Owner. The group is -1, "leave it", when none is given.
func (s Spec) ownerIDs() (uid, gid int, err error) {
	name, group, hasGroup := strings.Cut(s.Owner, ":")
	if name == "" || hasGroup && group == "" {
		return 0, 0, s.wrong("owner", s.Owner, "expected user or user:group")
	}
	// Names come before numbers, as in chown: a user may be called 1000.
	if u, lookup := user.Lookup(name); lookup == nil {
		name = u.Uid
	}
	uid, ok := parseID(name)
	if !ok {
		return 0, 0, s.wrong("owner", s.Owner, "expected the name or number of an existing user")
	}
	if !hasGroup {
		return uid, -1, nil
	}
	if g, lookup := user.LookupGroup(group); lookup == nil {
		group = g.Gid
	}
	gid, ok = parseID(group)
	if !ok {
		return 0, 0, s.wrong("owner", s.Owner, "expected the name or number of an existing group")
	}
	return uid, gid, nil
}

func parseID(s string) (int, bool) {
	// 31 bits: an int on every platform, and never the -1 that chown takes
	// for "leave it".
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err == nil
}
