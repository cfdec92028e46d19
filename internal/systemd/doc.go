// Package systemd speaks with the service manager: it takes up the files that
// systemd passes to a service, and tells it over its socket how the service is.
//
// go-systemd reads the passed files. It cannot send files, and would wait for
// ever for a systemd that does not read; so what is said is sent from here.
//
// Elsewhere than on Linux nothing is ever passed, and everything that is said
// falls on deaf ears.
package systemd
