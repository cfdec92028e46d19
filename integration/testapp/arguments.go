//go:build linux

package main

import (
	"crypto/tls"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/baton-go/baton/framework"
	"github.com/baton-go/baton/listener"
)

// argumentOptions are the options that package config has no room for, the bad
// ones above all: every argument is one, as in "Workers=-1", "Logger=nil" or
// "Listen=unix,/run/app.sock,main,0660".
func argumentOptions() []framework.Option {
	var opts []framework.Option
	for _, arg := range os.Args[1:] {
		name, value, _ := strings.Cut(arg, "=")
		if value != "" && value[0] == '"' { // what no argument can hold
			if text, err := strconv.Unquote(value); err == nil {
				value = text
			}
		}
		opts = append(opts, argumentOption(name, value))
	}
	return opts
}

func argumentOption(name, value string) framework.Option {
	switch name {
	case "Workers":
		return framework.Workers(number(value))
	case "BakeTime":
		return framework.BakeTime(duration(value))
	case "MaxDraining":
		return framework.MaxDraining(number(value))
	case "DrainTimeout":
		return framework.DrainTimeout(duration(value))
	case "StopTimeout":
		return framework.StopTimeout(duration(value))
	case "StopDelay":
		return framework.StopDelay(duration(value))
	case "ReadyTimeout":
		return framework.ReadyTimeout(duration(value))
	case "KillTimeout":
		return framework.KillTimeout(duration(value))
	case "HangTimeout":
		return framework.HangTimeout(duration(value))
	case "OrphanTimeout":
		return framework.OrphanTimeout(duration(value))
	case "GiveUpAfter":
		return framework.GiveUpAfter(duration(value))
	case "IdleGrace":
		return framework.IdleGrace(duration(value))
	case "DrainSpread":
		return framework.DrainSpread(duration(value))
	case "NoMove":
		return framework.NoMove(value)
	case "User":
		return framework.User(value)
	case "ReadyCheck":
		return framework.ReadyCheck(value)
	case "PIDFile":
		return framework.PIDFile(value)
	case "RuntimeDir":
		return framework.RuntimeDir(value)
	case "EnvFile":
		return framework.EnvFile(value)
	case "Logger":
		return framework.Logger(nil)
	case "Dispatch":
		if value == "nil" {
			return framework.Dispatch(nil)
		}
		return framework.Dispatch(policy(value))
	case "HTTPServer":
		return framework.HTTPServer(nil)
	case "StopOn":
		//lint:ignore SA1012 that it is refused is the point
		return framework.StopOn(nil)
	case "OnEvent":
		return framework.OnEvent(nil)
	case "OnListen":
		return framework.OnListen(nil)
	case "Handle":
		if name, isNil := strings.CutSuffix(value, ",nil"); isNil {
			return framework.Handle(name, nil)
		}
		return framework.Handle(value, http.NotFoundHandler())
	case "OnAdopt":
		if name, isNil := strings.CutSuffix(value, ",nil"); isNil {
			return framework.OnAdopt(name, nil)
		}
		return framework.OnAdopt(value, func(net.Conn, []byte) {})
	case "TLS":
		f := append(strings.Split(value, ","), "")
		return framework.TLS(f[0], f[1], f[2:len(f)-1]...)
	case "TLSConfig":
		if value == "nil" {
			return framework.TLSConfig(nil)
		}
		return framework.TLSConfig(&tls.Config{})
	case "Listen":
		return listen(strings.Split(value, ","))
	case "nil":
		return nil
	}
	log.Fatalf("testapp: no option is called %q", name)
	return nil
}

// listen takes network, address, name, mode, owner and accept mode, from the first on.
func listen(f []string) framework.Option {
	f = append(f, make([]string, 6)...)
	var o []listener.Option
	if f[2] != "" {
		o = append(o, listener.Name(f[2]))
	}
	if f[3] != "" {
		mode, err := strconv.ParseUint(f[3], 8, 32)
		if err != nil {
			log.Fatalf("testapp: mode: %v", err)
		}
		o = append(o, listener.Mode(fs.FileMode(mode)))
	}
	if f[4] != "" {
		o = append(o, listener.Owner(f[4]))
	}
	if f[5] != "" {
		o = append(o, listener.Accept(listener.AcceptMode(f[5])))
	}
	return framework.Listen(f[0], f[1], o...)
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		log.Fatalf("testapp: %v", err)
	}
	return n
}

func duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		log.Fatalf("testapp: %v", err)
	}
	return d
}
