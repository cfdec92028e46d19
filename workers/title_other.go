//go:build unix && !linux

package workers

func setComm(string) {}
