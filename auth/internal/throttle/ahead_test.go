package throttle_test

import (
	"math"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth/internal/throttle"
)

func TestAhead(t *testing.T) {
	t.Parallel()
	s, db, c := newStore(t)
	limit := throttle.Limit{Events: 60, Per: time.Hour, Burst: 5}
	wait := func(ahead int) time.Duration {
		one := check("ada", limit)
		one.Ahead = ahead
		return peek(t, s, one)
	}
	for taken := range 6 {
		for ahead := range 7 {
			want := time.Duration(max(0, taken+min(ahead, 5)+1-5)) * time.Minute
			if got := wait(ahead); got != want {
				t.Errorf("%d taken, %d ahead: %v, want %v", taken, ahead, got, want)
			}
		}
		fail(t, db, s, 1, check("ada", limit))
	}
	if got := wait(math.MaxInt); got != 6*time.Minute {
		t.Errorf("many ahead: %v", got)
	}
	// What is ahead is not stored: it may never happen.
	c.add(5 * time.Minute)
	if got := wait(0); got != 0 {
		t.Errorf("after five minutes: %v", got)
	}
}
