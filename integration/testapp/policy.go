//go:build linux

package main

import (
	"log"

	"github.com/baton-go/baton/workers/dispatch"
)

// policy is one of package dispatch, or of this application's own.
func policy(name string) dispatch.Policy {
	switch name {
	case "last", "forged":
		return last(name)
	case "panics":
		return new(panics)
	}
	p, err := dispatch.Parse(name)
	if err != nil {
		log.Fatalf("testapp: policy %q: %v", name, err)
	}
	return p
}

// last picks the last worker.
type last string

func (l last) Name() string {
	if l == "forged" {
		return "hash"
	}
	return string(l)
}

func (last) Pick(_ dispatch.Conn, ws []dispatch.Worker) int { return len(ws) - 1 }

// panics picks the last worker until it panics at the fifth connection.
type panics struct{ asked int }

func (*panics) Name() string { return "panics" }

func (p *panics) Pick(_ dispatch.Conn, ws []dispatch.Worker) int {
	if p.asked++; p.asked == 5 {
		panic("testapp: panics as told")
	}
	return len(ws) - 1
}
