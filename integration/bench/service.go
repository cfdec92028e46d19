//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/baton-go/baton/integration/peers"
	"github.com/baton-go/baton/integration/peers/tiny"
	"github.com/baton-go/baton/internal/control"
)

// A service is one of ours that runs, and what it costs beside its requests.
type service struct {
	*peers.Server
	peer    string
	control *control.Client
	master  int
}

// A finding is a figure of a service, which should not be more than its goal.
type finding struct {
	Peer  string  `json:"peer"`
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Goal  float64 `json:"goal"`
	Unit  string  `json:"unit"`
}

func (f finding) verdict() string {
	if f.Value <= f.Goal {
		return met
	}
	return missed
}

// amount is the value with its unit.
func (f finding) amount(v float64) string {
	return strings.TrimSpace(strconv.FormatFloat(v, 'f', f.decimals(), 64) + " " + f.Unit)
}

// decimals are fewer for what is counted.
func (f finding) decimals() int {
	if f.Unit == "" {
		return 0
	}
	return 1
}

// aspects are what is looked at, one after the other, each in a new service.
var aspects = []struct {
	name string
	find func(context.Context, *bench, *service) ([]finding, error)
}{
	{"wakeups", wakeups},
	{"memory", memory},
	{"balance", balance},
	{"reloads", reloads},
}

// services looks at one contender of ours for each accept mode.
func (b *bench) services(ctx context.Context, contenders []contender, stderr io.Writer) (found []finding, failures []string) {
	for _, c := range contenders {
		if c.unavailable != "" || !slices.Contains(modes, c.name) {
			continue
		}
		for _, a := range aspects {
			var fs []finding
			err := b.with(ctx, func(dir string) error {
				s, client, st, err := peers.StartBaton(ctx, b.bin, dir, c.env, "-tiny", b.file)
				if err == nil {
					fs, err = a.find(ctx, b, &service{s, c.name, client, st.Master.PID})
				}
				return endAll(s, err)
			})
			if ctx.Err() != nil {
				return found, failures
			}
			where := c.name + ", " + a.name
			if err != nil {
				fmt.Fprintf(stderr, "%s: %v\n", where, err)
				failures = append(failures, where+": "+firstLine(err))
			}
			for _, f := range fs {
				f.Peer = c.name
				fmt.Fprintf(stderr, "%s: %s: %s\n", c.name, f.What, f.amount(f.Value))
				found = append(found, f)
			}
		}
	}
	return found, failures
}

// wakeups of the process that wakes most, while nothing happens.
func wakeups(ctx context.Context, b *bench, _ *service) ([]finding, error) {
	pids := peers.Descendants()
	if err := pause(ctx, b.watch/2); err != nil { // what the start has left to do
		return nil, err
	}
	before, began := make(map[int]int), time.Now()
	for _, pid := range pids {
		before[pid] = switches(pid)
	}
	if err := pause(ctx, b.watch); err != nil {
		return nil, err
	}
	most := 0.0
	for _, pid := range pids {
		most = max(most, float64(switches(pid)-before[pid])/time.Since(began).Seconds())
	}
	return []finding{{What: "wakeups of an idle process", Value: most, Goal: 5, Unit: "/s"}}, nil
}

// switches counts how often the threads of a process have gone to sleep, and so
// how often they have been woken. One that has ended takes its share along.
func switches(pid int) int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	n := 0
	for _, path := range tasks {
		some, _ := strconv.Atoi(line(path, "voluntary_ctxt_switches"))
		n += some
	}
	return n
}

// memory of the master while its workers have many connections.
func memory(ctx context.Context, b *bench, s *service) ([]finding, error) {
	conns, err := openIdle(ctx, s.Addr, b.open)
	if err != nil {
		return nil, err
	}
	defer conns.close()
	kib, err := strconv.Atoi(strings.TrimSuffix(line(fmt.Sprintf("/proc/%d/status", s.master), "VmRSS"), " kB"))
	if err != nil {
		return nil, fmt.Errorf("memory of the master: %w", err)
	}
	what := fmt.Sprintf("master's resident memory with %d open connections", b.open)
	return []finding{{What: what, Value: float64(kib) / 1024, Goal: 25, Unit: "MiB"}}, nil
}

const (
	turns  = 200 // connections for each worker, to see whether they get as many
	atOnce = 16
)

// balance between workers. Who accepts on a socket that is shared is nobody's
// choice, and the other policies have other aims.
func balance(ctx context.Context, b *bench, s *service) ([]finding, error) {
	if s.peer != "baton" && s.peer != "baton-kernel" {
		return nil, nil
	}
	one, err := b.perWorker(ctx, s.Addr, 1)
	if err != nil {
		return nil, err
	}
	many, err := b.perWorker(ctx, s.Addr, atOnce)
	if err != nil {
		return nil, err
	}
	mean := float64(turns)
	return []finding{
		{What: fmt.Sprintf("most and fewest of %d connections a worker, one after the other: difference", turns), Value: float64(slices.Max(one) - slices.Min(one))},
		{What: fmt.Sprintf("the same, %d at a time: from the mean", atOnce), Goal: 10, Unit: "%",
			Value: 100 * max(float64(slices.Max(many))-mean, mean-float64(slices.Min(many))) / mean},
	}, nil
}

// perWorker counts the connections that each worker has had.
func (b *bench) perWorker(ctx context.Context, addr string, clients int) ([]int, error) {
	client := openClient(false)
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		count = make(map[string]int)
		errs  = make([]error, clients)
	)
	for c := range clients {
		wg.Go(func() {
			for i := c; i < turns*b.workers && errs[c] == nil; i += clients {
				id, err := answeredBy(ctx, client, addr)
				errs[c] = err
				mu.Lock()
				count[id]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	each := make([]int, b.workers)
	i := 0
	for _, n := range count {
		if i == len(each) {
			return nil, fmt.Errorf("%d workers answer, not %d", len(count), b.workers)
		}
		each[i] = n
		i++
	}
	return each, nil
}

func answeredBy(ctx context.Context, client *http.Client, addr string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+tiny.Hello, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.Header.Get(tiny.Worker), err
}

// reloads takes the time of many, each beside one start of the application
// without Baton. The last fifth must not take longer than the first.
func reloads(ctx context.Context, b *bench, s *service) ([]finding, error) {
	var ours, own []float64
	for range b.reloads {
		start, err := ownStart(ctx, b)
		if err != nil {
			return nil, err
		}
		began := time.Now()
		v, err := s.control.Reload(ctx)
		if err == nil && !v.OK {
			err = fmt.Errorf("a reload is refused: %s", v.Reason)
		}
		if err != nil {
			return nil, err
		}
		own = append(own, start)
		ours = append(ours, ms(time.Since(began)))
	}
	part := max(1, len(ours)/5)
	return []finding{
		{What: "from HUP to the new generation serving, beyond the application's own start", Goal: 50, Unit: "ms",
			Value: summarize(ours).Median - summarize(own).Median},
		{What: fmt.Sprintf("drift over %d reloads", len(ours)), Goal: 10, Unit: "%",
			Value: 100 * (summarize(ours[len(ours)-part:]).Median/summarize(ours[:part]).Median - 1)},
	}, nil
}

// ownStart is how long the application without Baton takes to listen.
func ownStart(ctx context.Context, b *bench) (float64, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, plain), "-tiny", b.file)
	cmd.SysProcAttr = peers.Apart()
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	cmd.Stderr = w
	began := time.Now()
	err = cmd.Start()
	w.Close()
	if err != nil {
		return 0, err
	}
	said, err := bufio.NewReader(r).ReadString('\n')
	took := time.Since(began)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if !strings.Contains(said, "listening on") {
		return 0, fmt.Errorf("%s does not listen: %q, %v", plain, said, err)
	}
	return ms(took), nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// pause is the time over which something is looked at.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
