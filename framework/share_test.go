package framework

import (
	"errors"
	"math"
	"runtime"
	"strconv"
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

func TestShareOfCPUsAndMemory(t *testing.T) {
	const gib = 1 << 30
	limit := func(n uint64) func() (uint64, error) { return func() (uint64, error) { return n, nil } }
	none := func() (uint64, error) { return 0, memlimit.ErrNoLimit }
	broken := func() (uint64, error) { return 0, errors.New("no cgroup") }
	share := func(total int64, workers int64) string {
		return strconv.FormatInt(total/10*9/(2*workers), 10)
	}
	for _, tt := range []struct {
		name          string
		env           environment
		workers, cpus int
		cgroup        func() (uint64, error)
		procs, memory string
	}{
		{"one each", nil, 4, 4, none, "1", ""},
		{"rounded down", nil, 3, 8, none, "2", ""},
		{"more workers than CPUs", nil, 8, 2, none, "1", ""},
		{"nonsense counts as one", nil, 0, 0, none, "1", ""},
		{"GOMAXPROCS is the total", environment{"GOMAXPROCS": "8"}, 4, 2, none, "2", ""},
		{"bad GOMAXPROCS is ignored", environment{"GOMAXPROCS": "-3"}, 1, 2, none, "2", ""},
		{"cgroup", nil, 4, 4, limit(4 * gib), "1", share(4*gib, 4)},
		{"cgroup unreadable", nil, 4, 4, broken, "1", ""},
		{"cgroup beyond int64", nil, 4, 4, limit(math.MaxUint64), "1", ""},
		{"GOMEMLIMIT is the total", environment{"GOMEMLIMIT": "2GiB"}, 2, 2, limit(4 * gib), "1", share(2*gib, 2)},
		{"GOMEMLIMIT off", environment{"GOMEMLIMIT": "off"}, 2, 2, limit(4 * gib), "1", "off"},
		{"GOMEMLIMIT empty", environment{"GOMEMLIMIT": ""}, 2, 2, limit(4 * gib), "1", share(4*gib, 2)},
		{"never below 32 MiB", environment{"GOMEMLIMIT": "100MiB"}, 8, 8, none, "1", strconv.Itoa(32 << 20)},
		{"no overflow", environment{"GOMEMLIMIT": "9223372036854775806"}, 1, 1, none, "1", share(math.MaxInt64-1, 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := tt.env.clone()
			got := shareFrom(tt.env, tt.workers, tt.cpus, tt.cgroup)
			if got["GOMAXPROCS"] != tt.procs {
				t.Errorf("GOMAXPROCS=%q, want %q", got["GOMAXPROCS"], tt.procs)
			}
			if got["GOMEMLIMIT"] != tt.memory {
				t.Errorf("GOMEMLIMIT=%q, want %q", got["GOMEMLIMIT"], tt.memory)
			}
			for name, v := range before {
				if tt.env[name] != v {
					t.Errorf("the service's own environment was changed: %v", tt.env)
				}
			}
		})
	}
}

func TestShareEnvKeepsTheRest(t *testing.T) {
	got := shareEnv(environment{"A": "1"}, 2, 4)
	if got["A"] != "1" || got["GOMAXPROCS"] != "2" {
		t.Errorf("%v", got)
	}
}

func TestParseMemoryAsTheRuntime(t *testing.T) {
	for _, tt := range []struct {
		text string
		want int64
		ok   bool
	}{
		{"", math.MaxInt64, true}, {"off", math.MaxInt64, true},
		{"0", 0, true}, {"1024", 1024, true}, {"7B", 7, true},
		{"3KiB", 3 << 10, true}, {"3MiB", 3 << 20, true}, {"3GiB", 3 << 30, true}, {"3TiB", 3 << 40, true},
		{"9223372036854775807", math.MaxInt64, true},
		{"8388607TiB", 8388607 << 40, true},
		{"8388608TiB", 0, false}, {"9223372036854775808", 0, false},
		{"-1", 0, false}, {"1.5GiB", 0, false}, {"1MB", 0, false}, {"1M", 0, false}, {"1iB", 0, false},
		{"MiB", 0, false}, {"B", 0, false}, {"OFF", 0, false}, {" 1", 0, false}, {"1_000", 0, false}, {"1PiB", 0, false},
	} {
		if got, ok := parseMemory(tt.text); got != tt.want || ok != tt.ok {
			t.Errorf("parseMemory(%q) = %d, %v, want %d, %v", tt.text, got, ok, tt.want, tt.ok)
		}
	}
}

func TestSmallQuotaIsOneCPU(t *testing.T) {
	for _, tt := range []struct {
		quota float64
		want  int
	}{
		{0.1, 1}, {1, 1}, {1.9, 1}, {2, min(2, runtime.NumCPU())}, {2.1, min(3, runtime.NumCPU())},
		{1e6, runtime.NumCPU()},
	} {
		if got := quotaCPUs(tt.quota); got != tt.want {
			t.Errorf("quota %v: %d CPUs, want %d", tt.quota, got, tt.want)
		}
	}
}

func TestUsableCPUs(t *testing.T) {
	t.Cleanup(runtime.SetDefaultGOMAXPROCS)
	if n := usableCPUs(); n < 1 || n != runtime.GOMAXPROCS(0) {
		t.Errorf("%d usable CPUs with GOMAXPROCS %d", n, runtime.GOMAXPROCS(0))
	}
	t.Setenv("GOMAXPROCS", "3")
	runtime.GOMAXPROCS(3) // as the runtime has done at start
	if n := usableCPUs(); n != 3 {
		t.Errorf("%d usable CPUs with GOMAXPROCS=3 in the environment", n)
	}
}
