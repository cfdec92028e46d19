package framework

import (
	"math"
	"runtime"
	"strconv"
	"strings"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"go.uber.org/automaxprocs/maxprocs"
)

// minWorkerMemory is the least GOMEMLIMIT that a worker is given. Below it the
// garbage collector would run all the time and the worker serve nobody.
const minWorkerMemory = 32 << 20

// usableCPUs is how many CPUs the service may use, at least 1: what GOMAXPROCS
// of the environment says, else the CPUs of the affinity mask or the CPU quota
// of the cgroup, whichever is less. It sets GOMAXPROCS of the calling process
// to that.
//
// For the master only: a worker would count its share.
func usableCPUs() int {
	// No quota, or none that can be read, leaves GOMAXPROCS as the runtime has
	// chosen it, and that is the answer then.
	_, _ = maxprocs.Set(maxprocs.Min(1), maxprocs.RoundQuotaFunc(quotaCPUs))
	return max(1, runtime.GOMAXPROCS(0))
}

// quotaCPUs is as the runtime counts, up and never above the CPUs there are,
// but for quotas below 2. The runtime makes 2 of them, to leave a CPU to the
// garbage collector; N processes that do so run into the quota together and
// stand still for the rest of its period.
func quotaCPUs(quota float64) int {
	if quota < 2 {
		return 1
	}
	return min(int(math.Ceil(quota)), runtime.NumCPU())
}

// shareEnv returns env with a worker's share of CPUs and memory. env is the
// whole service's and is not changed; workers and cpus count as 1 at least.
//
// GOMAXPROCS and GOMEMLIMIT of the environment are the service's totals, and
// are shared out: GOMAXPROCS=8 with 4 workers gives 2 to each. Without them
// the totals are cpus and the memory limit of the cgroup.
//
// Memory is shared among twice the workers, since a draining generation lives
// beside the serving one, and a tenth is left for the masters and for what the
// garbage collector does not count. A worker gets 32 MiB at least, even if the
// sum is then more than the total. Where nothing limits memory, or GOMEMLIMIT
// is off, workers have no limit.
func shareEnv(env environment, workers, cpus int) environment {
	return shareFrom(env, workers, cpus, memlimit.FromCgroup)
}

func shareFrom(env environment, workers, cpus int, cgroup func() (uint64, error)) environment {
	env, workers = env.clone(), max(1, workers)

	// EnvFile can set it, where usableCPUs does not see it. The runtime ignores
	// what is not a positive number, and so does this.
	if n, err := strconv.ParseInt(env["GOMAXPROCS"], 10, 32); err == nil && n > 0 {
		cpus = int(n)
	}
	env["GOMAXPROCS"] = strconv.Itoa(max(1, cpus/workers))

	if limit, ok := memoryTotal(env, cgroup); ok {
		// By division first: ninety per cent of a large limit would overflow.
		each := limit / 10 * 9 / (2 * int64(workers))
		env["GOMEMLIMIT"] = strconv.FormatInt(max(minWorkerMemory, each), 10)
	}
	return env
}

// memoryTotal is the service's limit in bytes. False leaves GOMEMLIMIT as it
// is: there is no limit, or "off" says so.
func memoryTotal(env environment, cgroup func() (uint64, error)) (int64, bool) {
	if text, ok := env.lookup("GOMEMLIMIT"); ok {
		limit, ok := parseMemory(text) // resolve has refused what is not ok
		return limit, ok && limit != math.MaxInt64
	}
	limit, err := cgroup()
	if err != nil || limit >= math.MaxInt64 {
		return 0, false
	}
	return int64(limit), true
}

// parseMemory reads GOMEMLIMIT as the runtime does. math.MaxInt64 is no limit.
func parseMemory(text string) (int64, bool) {
	if text == "" || text == "off" {
		return math.MaxInt64, true
	}
	unit := int64(1)
	digits, suffixed := strings.CutSuffix(text, "B")
	if suffixed {
		for i, prefix := range []string{"Ki", "Mi", "Gi", "Ti"} {
			if d, ok := strings.CutSuffix(digits, prefix); ok {
				digits, unit = d, 1<<(10*(i+1))
				break
			}
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, false
	}
	return n * unit, true
}
