package workers

import "fmt"

// WorkerState is where a worker stands, as its master sees it.
type WorkerState int

// The life of a worker. Killed means that SIGKILL was sent and the exit is
// awaited; Exited is final.
const (
	WorkerStarting WorkerState = iota
	WorkerIsReady
	WorkerServing
	WorkerIsDraining
	WorkerIsKilled
	WorkerIsGone
)

var workerStates = [...]string{"starting", "ready", "serving", "draining", "killed", "exited"}

func (s WorkerState) String() string { return workerStates[s] }

// GenerationState is where a generation stands.
type GenerationState int

// The life of a generation. A discarded one never served.
const (
	GenerationStarting GenerationState = iota
	GenerationIsReady
	GenerationIsServing
	GenerationIsDraining
	GenerationIsDiscarded
	GenerationIsGone
)

var generationStates = [...]string{"starting", "ready", "serving", "draining", "discarded", "gone"}

func (s GenerationState) String() string { return generationStates[s] }

// workerMoves and generationMoves are the whole of both state machines: a
// change that is not listed is a bug in the pool and panics.
var workerMoves = map[WorkerState][]WorkerState{
	WorkerStarting:   {WorkerIsReady, WorkerIsDraining, WorkerIsKilled, WorkerIsGone},
	WorkerIsReady:    {WorkerServing, WorkerIsDraining, WorkerIsKilled, WorkerIsGone},
	WorkerServing:    {WorkerIsDraining, WorkerIsKilled, WorkerIsGone},
	WorkerIsDraining: {WorkerIsKilled, WorkerIsGone},
	WorkerIsKilled:   {WorkerIsGone},
	WorkerIsGone:     {},
}

var generationMoves = map[GenerationState][]GenerationState{
	GenerationStarting:    {GenerationIsReady, GenerationIsDiscarded},
	GenerationIsReady:     {GenerationIsServing, GenerationIsDiscarded},
	GenerationIsServing:   {GenerationIsDraining, GenerationIsGone},
	GenerationIsDraining:  {GenerationIsGone},
	GenerationIsDiscarded: {GenerationIsGone},
	GenerationIsGone:      {},
}

// move changes *s to next if the table allows it.
func move[S interface {
	comparable
	fmt.Stringer
}](s *S, next S, table map[S][]S) {
	for _, ok := range table[*s] {
		if ok == next {
			*s = next
			return
		}
	}
	panic(fmt.Sprintf("workers: no move from %v to %v", *s, next))
}
