//go:build unix && !linux

package listener

import "errors"

func shun(int) error { return errors.ErrUnsupported }

func welcome(int) {}
