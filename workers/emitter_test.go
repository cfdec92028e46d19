package workers

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestBlockedSubscriberHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var got []int
		e := newEmitter(func(ev Event) {
			<-release
			got = append(got, ev.(WorkerReady).PID)
		})
		const sent = 3 * waitingEvents
		for i := range sent {
			e.emit(WorkerReady{PID: i}) // a block here would be a deadlock of the bubble
			synctest.Wait()
		}
		close(release)
		e.close()
		// One is in the subscriber's hands, waitingEvents wait; the newest are lost.
		if len(got) != waitingEvents+1 {
			t.Errorf("%d events delivered, want %d", len(got), waitingEvents+1)
		}
		for i, pid := range got {
			if pid != i {
				t.Fatalf("event %d was %d: out of order", i, pid)
			}
		}
	})
}

func TestCloseDeliversWhatWaitsAndNothingLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got int
		e := newEmitter(func(Event) {
			time.Sleep(time.Millisecond)
			got++
		})
		for range 100 {
			e.emit(WorkerReady{})
		}
		e.close()
		if got != 100 {
			t.Errorf("%d of 100 events delivered", got)
		}
		e.emit(WorkerReady{}) // no panic
		synctest.Wait()
		if got != 100 {
			t.Error("an event came after the end")
		}
	})
}

func TestCloseDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		e := newEmitter(func(Event) { <-release })
		e.emit(WorkerReady{})
		start := time.Now()
		e.close()
		if d := time.Since(start); d != lastEvents {
			t.Errorf("close took %v, want %v", d, lastEvents)
		}
		close(release)
	})
}

func TestEmitterWithoutSubscriber(t *testing.T) {
	e := newEmitter(nil)
	e.emit(WorkerReady{})
	e.close()
}
