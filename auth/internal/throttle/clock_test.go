package throttle_test

import (
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth/internal/throttle"
)

// Wherever the clock is set, a limit that is used up keeps nobody out for
// longer than its Per, and lets at most a burst pass.
func TestB12_ClockSteps(t *testing.T) {
	t.Parallel()
	limit := throttle.Limit{Events: 10, Per: 15 * time.Minute}
	for _, step := range []time.Duration{-time.Hour, -24 * time.Hour, -10 * 365 * 24 * time.Hour, -time.Minute, time.Hour, 24 * time.Hour} {
		for name, use := range map[string]func(testing.TB, *throttle.Store, ...throttle.Check) time.Duration{"peek": peek, "take": take} {
			t.Run(name+" "+step.String(), func(t *testing.T) {
				t.Parallel()
				s, db, c := newStore(t)
				a := check("a", limit)
				fail(t, db, s, 20, a)
				c.add(step)

				for start := c.now(); use(t, s, a) > 0; c.add(time.Second) {
					if c.now().Sub(start) > limit.Per {
						t.Fatalf("locked out for longer than %v", limit.Per)
					}
				}
				passed := 0
				if name == "take" {
					passed++ // by which the loop ended
				}
				for take(t, s, a) == 0 {
					passed++
				}
				most := 1
				if step > 0 {
					most = limit.Events
				}
				if passed < 1 || passed > most {
					t.Errorf("%d passed, want 1 to %d", passed, most)
				}
				// And back again.
				c.add(-step)
				for range limit.Events + 1 {
					if take(t, s, a) > 0 {
						return
					}
				}
				t.Error("the step back has freed more than a burst")
			})
		}
	}
}

// A failure that is counted right after a step cuts the debt down as well.
func TestB12_FailureAfterBackwardStep(t *testing.T) {
	t.Parallel()
	s, db, c := newStore(t)
	a := check("a", throttle.Limit{Events: 2, Per: time.Minute})
	fail(t, db, s, 2, a)
	c.add(-24 * time.Hour)
	fail(t, db, s, 1, a)
	if ahead := number(t, db, "SELECT max(tat) FROM _throttle") - c.now().UnixMicro(); ahead != time.Minute.Microseconds() {
		t.Errorf("the debt is %d µs, want a minute", ahead)
	}
}
