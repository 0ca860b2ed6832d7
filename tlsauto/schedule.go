package tlsauto

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"time"
)

const (
	tick            = time.Minute         // the longest time without a look at the wall clock, which a suspended machine's timers miss
	shortLife       = 10 * 24 * time.Hour // certificates that live for less are renewed when half of it is left
	minAttempt      = 10 * time.Second    // attempts may take that long, however short the time
	maxRetryAfter   = 24 * time.Hour
	adoptDelay      = time.Hour
	adoptDelayLife  = 30 * 24 * time.Hour // certificates that live for longer are served after adoptDelay
	minPause        = 100 * time.Millisecond
	maxPause        = 30 * 24 * time.Hour
	urgentShare     = 6              // less than a sixth of the life is left
	earliestAdvice  = 36 * time.Hour // no certificate is renewed early on advice before it is that old
	recordHonoured  = 6 * time.Hour  // what was planned that long ago says nothing about a certificate that is missing now
	clockTolerance  = 5 * time.Minute
	expiringRepeats = time.Hour
)

func life(leaf *x509.Certificate) time.Duration { return leaf.NotAfter.Sub(leaf.NotBefore) }

// renewalTime is when a certificate is due: when a third of its life is left, or half of a short one,
// less up to a tenth of that. What is subtracted is drawn from the certificate and salt, so that it does
// not change with a restart, and certificates that were issued together are not renewed together.
func renewalTime(leaf *x509.Certificate, salt string) time.Time {
	left := life(leaf) / 3
	if life(leaf) < shortLife {
		left = life(leaf) / 2
	}
	return leaf.NotAfter.Add(-left + within(left/10, leaf.SerialNumber.String(), salt))
}

// within draws a duration of at most d from what is given; the same one each time.
func within(d time.Duration, from ...string) time.Duration {
	sum := sha256.Sum256([]byte(strings.Join(from, "\x00")))
	share := float64(binary.BigEndian.Uint32(sum[:])) / (1 << 32)
	return time.Duration(float64(d) * share)
}

// urgentTime is when a certificate begins to be urgent.
func urgentTime(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-life(leaf) / urgentShare)
}

// isUrgent reports whether a certificate is missing, has expired, or soon will have.
func isUrgent(c *certificate, now time.Time) bool {
	return c == nil || !now.Before(urgentTime(c.tls.Leaf))
}

func isValid(c *certificate, now time.Time) bool {
	return c != nil && !now.Before(c.tls.Leaf.NotBefore) && now.Before(c.tls.Leaf.NotAfter)
}

// isBetter reports whether c should be served rather than other: if it alone is valid, or was issued
// later. Whatever was issued last is what somebody wanted last, as after a key was lost.
func isBetter(c, other *certificate, now time.Time) bool {
	if c == nil || other == nil {
		return c != nil
	}
	a, b := c.tls.Leaf, other.tls.Leaf
	if expired := !now.Before(a.NotAfter); expired != !now.Before(b.NotAfter) {
		return !expired
	}
	if !a.NotBefore.Equal(b.NotBefore) {
		return a.NotBefore.After(b.NotBefore)
	}
	return a.NotAfter.After(b.NotAfter)
}

// adoptionTime is when the next certificate takes the place of old. Where that is of no use to clients, it
// does at once, even if its own time is still to come by a clock that may be wrong.
func adoptionTime(old, next *certificate, delay time.Duration, now time.Time) time.Time {
	if !isValid(old, now) {
		return now
	}
	if delay == 0 && life(next.tls.Leaf) > adoptDelayLife {
		delay = adoptDelay
	}
	at := now.Add(max(0, min(delay, old.tls.Leaf.NotAfter.Sub(now)/2)))
	if at.Before(next.tls.Leaf.NotBefore) {
		at = next.tls.Leaf.NotBefore
	}
	return at
}

// attemptTime is how long an attempt may take while c is served.
func attemptTime(limit time.Duration, c *certificate, now time.Time) time.Duration {
	if !isValid(c, now) {
		return limit
	}
	return min(limit, max(c.tls.Leaf.NotAfter.Sub(now)/4, minAttempt))
}

// pauseAfter is the time between a failed attempt and the next one, while c is served. base is what
// Config.Backoff says.
func pauseAfter(base time.Duration, c *certificate, now time.Time) time.Duration {
	base = min(max(base, minPause), maxPause)
	pause := base - base/5 + rand.N(2*base/5+1) //nolint:gosec // spreads attempts, guards nothing
	if !isValid(c, now) {
		return pause
	}
	left := c.tls.Leaf.NotAfter.Sub(now)
	if left < life(c.tls.Leaf)/10 {
		pause /= 2
	}
	pause = min(pause, max(left/8, minAttempt))
	return max(pause, min(base, minAttempt)/2)
}

func defaultBackoff(failures int) time.Duration {
	pauses := [...]time.Duration{
		1 * time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute,
		1 * time.Hour, 2 * time.Hour, 4 * time.Hour, 6 * time.Hour,
	}
	return pauses[min(max(failures, 1), len(pauses))-1]
}
