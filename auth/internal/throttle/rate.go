package throttle

import (
	"errors"
	"time"
)

// maxDebt is the most that a limit may let somebody owe, in microseconds: a
// hundred years, far from where sums with the time of day overflow.
const maxDebt = 100 * 365 * 24 * int64(time.Hour/time.Microsecond)

// rate is a limit in the terms of GCRA, in microseconds.
type rate struct {
	interval int64 // what one event adds to the debt
	most     int64 // the debt after a burst
}

// rate returns the limit as a rate, or everything that is wrong with it. The
// zero Limit has the zero rate.
func (l Limit) rate() (rate, error) {
	if l == (Limit{}) {
		return rate{}, nil
	}
	var errs []error
	if l.Events <= 0 {
		errs = append(errs, errors.New("events must be positive"))
	}
	if l.Per <= 0 {
		errs = append(errs, errors.New("period must be positive"))
	}
	if l.Burst < 0 {
		errs = append(errs, errors.New("burst must not be negative"))
	}
	if errs != nil {
		return rate{}, errors.Join(errs...)
	}
	burst := int64(l.Burst)
	if burst == 0 {
		burst = int64(l.Events)
	}
	interval := ceil(ceil(int64(l.Per), int64(time.Microsecond)), int64(l.Events))
	if interval > maxDebt/burst {
		return rate{}, errors.New("a burst takes more than a hundred years")
	}
	return rate{interval: interval, most: interval * burst}, nil
}

// wait returns how long after now another event is allowed, when the debt has
// grown by what is ahead.
func (r rate) wait(tat, ahead, now int64) time.Duration {
	tat = min(max(tat, now), now+r.most) + ahead
	return time.Duration(max(0, tat+r.interval-r.most-now)) * time.Microsecond
}

// ceil is a/b rounded up, for positive numbers.
func ceil(a, b int64) int64 {
	return (a-1)/b + 1
}
