//go:build unix && !linux

package workers

import (
	"errors"
	"os"
)

// canOutlive: workers leave when their master is dead.
const canOutlive = false

func startTime(int) (uint64, error) { return 0, errors.ErrUnsupported }

func findProcess(int, uint64) (*process, error) { return nil, errors.ErrUnsupported }

func (p *process) alive() bool { return false }

func (p *process) executable() (*os.File, error) { return nil, errors.ErrUnsupported }

func (p *process) environ() ([]string, error) { return nil, errors.ErrUnsupported }

func peer(int) (pid, uid int, err error) { return 0, 0, errors.ErrUnsupported }

func cookie(int) uint64 { return 0 }
