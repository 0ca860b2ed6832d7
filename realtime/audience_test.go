package realtime

import (
	"context"
	"errors"
	"testing"
)

// TestAudienceKeepsNothing that all members have taken.
func TestAudienceKeepsNothing(t *testing.T) {
	t.Parallel()
	a := newAudience(0, sharedEvents)
	join := func(cursor int64) *conn {
		c := &conn{wake: make(chan struct{}, 1), cursor: cursor}
		a.add(c)
		return c
	}
	take := func(c *conn, limit, want int) {
		t.Helper()
		events, _, ok := a.after(nil, c, limit, sendBytes)
		if !ok || len(events) != want {
			t.Fatalf("%d events, %v, want %d", len(events), ok, want)
		}
		if want > 0 {
			c.cursor = events[want-1].seq
		}
	}
	kept := func(want int) {
		t.Helper()
		if len(a.events) != want || want == 0 && (a.events != nil || a.bytes != 0) {
			t.Fatalf("%d events, %d bytes are kept, want %d", len(a.events), a.bytes, want)
		}
	}
	x, y := join(0), join(0)
	a.append([]event{{seq: 1}, {seq: 2}})
	take(x, 9, 2)
	take(y, 1, 1)
	kept(2)
	take(y, 1, 1)
	kept(0)
	a.append([]event{{seq: 3}})
	z := join(2) // whoever comes has not taken what is there
	take(x, 9, 1)
	take(y, 9, 1)
	kept(1)
	take(z, 9, 1)
	kept(0)
	a.append([]event{{seq: 4}, {seq: 5}})
	take(x, 9, 2)
	take(z, 9, 2)
	kept(2)
	a.remove(y) // nor do those who go keep anything
	kept(0)
	a.append([]event{{seq: 6}})
	a.skip(7)
	kept(0)
	if _, upTo, ok := a.after(nil, x, 9, sendBytes); ok || upTo != 7 {
		t.Errorf("from the log up to %d, %v", upTo, !ok)
	}
}

// TestCutBeforeTheStart is not lost.
func TestCutBeforeTheStart(t *testing.T) {
	t.Parallel()
	var c conn
	cause := errors.New("cause")
	c.cutOff(cause)
	ctx, cut := context.WithCancelCause(t.Context())
	defer cut(nil)
	c.started(cut)
	if err := context.Cause(ctx); err != cause {
		t.Error(err)
	}
}
