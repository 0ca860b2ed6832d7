package tlsauto

import (
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"testing"
	"time"
)

// lived is a certificate that has lived for some time, and the time now.
func lived(life, age time.Duration) (*certificate, time.Time) {
	issued := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(4711), NotBefore: issued, NotAfter: issued.Add(life)}
	return &certificate{tls: &tls.Certificate{Leaf: leaf}}, issued.Add(age)
}

func TestRenewalTime(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, tt := range []struct{ life, from, until time.Duration }{
		{90 * day, 60 * day, 63 * day},
		{64 * day, 64 * day * 2 / 3, 64 * day * 7 / 10},
		{45 * day, 30 * day, 31*day + day/2},
		{10 * day, 160 * time.Hour, 168 * time.Hour},
		{6 * day, 3 * day, 3*day + day*3/10},
		{time.Minute, 30 * time.Second, 33 * time.Second},
	} {
		c, _ := lived(tt.life, 0)
		seen := map[time.Duration]bool{}
		for serial := range int64(100) {
			c.tls.Leaf.SerialNumber = big.NewInt(serial)
			got := renewalTime(c.tls.Leaf, "").Sub(c.tls.Leaf.NotBefore)
			if got < tt.from || got > tt.until {
				t.Errorf("life %v: renewed after %v, want %v to %v", tt.life, got, tt.from, tt.until)
			}
			if again := renewalTime(c.tls.Leaf, "").Sub(c.tls.Leaf.NotBefore); again != got {
				t.Errorf("life %v: renewed after %v and %v", tt.life, got, again)
			}
			seen[got] = true
		}
		if len(seen) < 90 {
			t.Errorf("life %v: %d times for 100 certificates", tt.life, len(seen))
		}
	}
}

func TestPauseAfter(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name              string
		base, life, age   time.Duration
		shortest, longest time.Duration
	}{
		{"varied", 10 * time.Minute, 90 * day, 60 * day, 8 * time.Minute, 12 * time.Minute},
		{"expired", 6 * time.Hour, 90 * day, 91 * day, 288 * time.Minute, 432 * time.Minute},
		{"capped", 6 * time.Hour, 6 * day, 5*day + 4*time.Hour, 150 * time.Minute, 150 * time.Minute},
		{"halved", time.Hour, 90 * day, 82 * day, 24 * time.Minute, 36 * time.Minute},
		{"at the end", time.Hour, 90 * day, 90*day - time.Second, 10 * time.Second, 10 * time.Second},
		{"shorter by itself", time.Second, 90 * day, 90*day - time.Second, time.Second / 2, time.Second * 12 / 10},
		{"nothing", 0, 90 * day, day, 80 * time.Millisecond, 120 * time.Millisecond},
		{"negative", -time.Hour, 90 * day, day, 80 * time.Millisecond, 120 * time.Millisecond},
		{"absurd", 1<<63 - 1, 90 * day, 91 * day, 24 * day, 36 * day},
	} {
		c, now := lived(tt.life, tt.age)
		for range 100 {
			if got := pauseAfter(tt.base, c, now); got < tt.shortest || got > tt.longest {
				t.Errorf("%s: %v, want %v to %v", tt.name, got, tt.shortest, tt.longest)
			}
		}
	}
}

func TestAttemptTime(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ limit, life, age, want time.Duration }{
		{5 * time.Minute, 90 * 24 * time.Hour, 0, 5 * time.Minute},
		{5 * time.Minute, 10 * time.Minute, 2 * time.Minute, 2 * time.Minute},
		{5 * time.Minute, 10 * time.Minute, 599 * time.Second, 10 * time.Second},
		{5 * time.Minute, 10 * time.Minute, 601 * time.Second, 5 * time.Minute},
		{time.Second, 10 * time.Minute, 599 * time.Second, time.Second},
	} {
		c, now := lived(tt.life, tt.age)
		if got := attemptTime(tt.limit, c, now); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
	if got := attemptTime(time.Hour, nil, time.Now()); got != time.Hour {
		t.Errorf("without a certificate: %v", got)
	}
}

func TestIsBetter(t *testing.T) {
	t.Parallel()
	old, now := lived(90*24*time.Hour, 0)
	at := func(from, until time.Duration) *certificate {
		return &certificate{tls: &tls.Certificate{Leaf: &x509.Certificate{NotBefore: now.Add(from), NotAfter: now.Add(until)}}}
	}
	for _, tt := range []struct {
		name     string
		c, other *certificate
		want     bool
	}{
		{"none at all", nil, nil, false},
		{"none", nil, old, false},
		{"the first", old, nil, true},
		{"the same", old, old, false},
		{"issued later", at(time.Hour, 2*time.Hour), old, true},
		{"issued earlier", old, at(time.Hour, 2*time.Hour), false},
		{"lives longer", at(0, 91*24*time.Hour), old, true},
		{"later but expired", at(-time.Hour, -time.Minute), at(-2*time.Hour, time.Hour), false},
		{"valid instead of expired", at(-2*time.Hour, time.Hour), at(-time.Hour, -time.Minute), true},
	} {
		if got := isBetter(tt.c, tt.other, now); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestBoundedText(t *testing.T) {
	t.Parallel()
	long := make([]byte, 2000)
	for i := range long {
		long[i] = "ä"[i%2]
	}
	for in, want := range map[string]string{
		"plain":          "plain",
		"two\nlines\x1b": "two lines ",
		"bad \xff":       "bad ?",
	} {
		if got := boundedText(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := boundedText(string(long)); len(got) > maxText || got[len(got)-5:] != "ä..." {
		t.Errorf("%d bytes: %q", len(got), got[len(got)-8:])
	}
}
