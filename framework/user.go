package framework

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/baton-go/baton/workers"
)

// checkUser looks the user of the workers up, in the process that starts them.
func (o *options) checkUser() {
	if o.User == "" || mark != nil || o.single {
		return
	}
	said := o.source("User", strconv.Quote(o.User))
	u, err := lookupUser(o.User)
	if err != nil {
		o.problem("%s: expected the name or number of an existing user: %v", said, err)
		return
	}
	account, err := accountOf(u)
	if err != nil {
		o.problem("%s: %v", said, err)
		return
	}
	euid := os.Geteuid()
	if int(account.UID) == euid {
		return // nothing has to change
	}
	if euid != 0 {
		o.problem("%s: this process runs as uid %d: expected root, or that user itself", said, euid)
		return
	}
	o.account = account
	o.userEnv = map[string]string{"USER": u.Username, "LOGNAME": u.Username, "HOME": u.HomeDir}
}

func lookupUser(name string) (*user.User, error) {
	u, err := user.Lookup(name)
	if err == nil {
		return u, nil
	}
	if byID, iderr := user.LookupId(name); iderr == nil {
		return byID, nil
	}
	return nil, err
}

func accountOf(u *user.User) (*workers.Account, error) {
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("groups of %s: %w", u.Username, err)
	}
	a := &workers.Account{}
	if a.UID, err = parseID(u.Uid); err == nil {
		a.GID, err = parseID(u.Gid)
	}
	for _, id := range ids {
		var gid uint32
		if err == nil {
			gid, err = parseID(id)
		}
		a.Groups = append(a.Groups, gid)
	}
	if err != nil {
		return nil, fmt.Errorf("ids of %s: %w", u.Username, err)
	}
	return a, nil
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	return uint32(n), err
}

// asUser is env for the user of the workers: its name and home, as a service
// manager that starts a program as that user would set them. What EnvFile says
// stays.
func (o *options) asUser(env environment) environment {
	if o.account == nil {
		return env
	}
	env = env.clone()
	for name, value := range o.userEnv {
		if env[name] == o.inherited[name] {
			env[name] = value
		}
	}
	return env
}

var userVar = variable[string]{
	option: "User", name: "BATON_USER",
	expected: "the name or number of a user",
	at:       func(o *options) *string { return &o.User },
	parse:    func(s string) (string, bool) { return s, true },
	check:    func(s string) (string, bool) { return s, !strings.ContainsAny(s, "\x00:") },
	format:   strconv.Quote,
}
