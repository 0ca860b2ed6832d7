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
	clockBehind     = 25 * time.Hour   // a new certificate may begin to be valid that far ahead: by a clock in the wrong zone it does
	refusedPause    = 6 * time.Hour    // after a certificate that was issued and cannot be used, as authorities count it
	soonestRenewal  = 10 * time.Minute // after it was obtained, or an eighth of a life that is shorter than that
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

// dueTime is when a certificate is to be renewed: in its renewalTime, but not before half of what was left
// of it when it was obtained. By a clock that is ahead, or from an authority that dates them back, certificates
// are due when they come, and each would be the reason to order the next.
func dueTime(c *certificate, salt string, now time.Time) time.Time {
	at := renewalTime(c.tls.Leaf, salt)
	obtained := c.obtainedBy(now)
	if obtained.IsZero() {
		return at
	}
	leaf := c.tls.Leaf
	earliest := obtained.Add(max(leftAt(leaf, obtained)/2, min(soonestRenewal, life(leaf)/8)))
	if at.Before(earliest) {
		return earliest
	}
	return at
}

// cameLate reports whether a certificate was due, or nearly so, when it was obtained.
func cameLate(c *certificate, now time.Time) bool {
	obtained := c.obtainedBy(now)
	return !obtained.IsZero() && renewalTime(c.tls.Leaf, "").Before(obtained.Add(leftAt(c.tls.Leaf, obtained)/4))
}

// leftAt is how much of a certificate is left, all of it before its time.
func leftAt(leaf *x509.Certificate, t time.Time) time.Duration {
	return min(leaf.NotAfter.Sub(t), life(leaf))
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

// hasExpired is not the opposite of isValid: a certificate whose time is still to come is good for clients
// whose clocks are right, if the one here is behind.
func hasExpired(c *certificate, now time.Time) bool { return !now.Before(c.tls.Leaf.NotAfter) }

// isBetter reports whether c should be served rather than other: if it alone has not expired, or was obtained
// later. Whatever was obtained last is what somebody wanted last, as after a key was lost. Some issuers date back,
// so that the times of validity do not tell which one that is.
func isBetter(c, other *certificate, now time.Time) bool {
	if c == nil || other == nil {
		return c != nil
	}
	if expired := hasExpired(c, now); expired != hasExpired(other, now) {
		return !expired
	}
	a, b := c.tls.Leaf, other.tls.Leaf
	came, otherCame := c.obtainedBy(now), other.obtainedBy(now)
	if !came.IsZero() && !otherCame.IsZero() && !came.Equal(otherCame) {
		return came.After(otherCame)
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
	if at.After(old.tls.Leaf.NotAfter) {
		at = old.tls.Leaf.NotAfter
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
