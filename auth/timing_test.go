package auth_test

import (
	"cmp"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth"
)

var timingFull = flag.Bool("timing.full", false, "take 2,000 samples of each timing instead of 400")

// timingEqual fails if a and b can be told apart by how long they take: by a
// rank test, if there is a twentieth between their medians, too, or by more
// than a millisecond. Without the network in between, the rank test alone tells
// a row that is found from one that is not, which is a microsecond or two. The
// samples are interleaved in random order. A machine that is busy with
// something else may fool it now and then; what fails five times is a
// difference.
//
// Tests that call it must not be parallel ones.
func timingEqual(t *testing.T, name string, a, b func()) {
	t.Helper()
	if testing.Short() {
		t.Skip("timing is not tested in short mode")
	}
	n := 400
	if *timingFull {
		n = 2000
	}
	var seen string
	for range 5 {
		x, y := interleave(n, a, b)
		p, gap := mannWhitney(x, y), (median(x) - median(y)).Abs()
		seen += fmt.Sprintf("\n\tp = %.2g, medians %v and %v", p, median(x), median(y))
		if p > 0.01 || gap < min(median(x), median(y))/20 && gap < time.Millisecond {
			t.Logf("%s:%s", name, seen)
			return
		}
	}
	t.Errorf("%s: the times differ:%s", name, seen)
}

// interleave measures a and b n times each.
func interleave(n int, a, b func()) (x, y []time.Duration) {
	measure := func(f func()) time.Duration {
		start := time.Now()
		f()
		return time.Since(start)
	}
	for range 10 {
		a()
		b()
	}
	for len(x) < n || len(y) < n {
		// Whichever is behind is as likely to come next as its share of what is left.
		if rand.IntN(2*n-len(x)-len(y)) < n-len(x) {
			x = append(x, measure(a))
		} else {
			y = append(y, measure(b))
		}
	}
	return x, y
}

// mannWhitney returns the two-sided p of the hypothesis that x and y come from
// one distribution, by the normal approximation of the rank sum.
func mannWhitney(x, y []time.Duration) float64 {
	type sample struct {
		d     time.Duration
		first bool
	}
	var all []sample
	for _, d := range x {
		all = append(all, sample{d, true})
	}
	for _, d := range y {
		all = append(all, sample{d, false})
	}
	slices.SortFunc(all, func(a, b sample) int { return cmp.Compare(a.d, b.d) })
	var ranks, ties float64
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j].d == all[i].d {
			j++
		}
		for _, s := range all[i:j] {
			if s.first {
				ranks += float64(i+j+1) / 2 // the mean rank of those that are equal
			}
		}
		same := float64(j - i)
		ties += same*same*same - same
		i = j
	}
	n, m := float64(len(x)), float64(len(y))
	total := n + m
	u := ranks - n*(n+1)/2
	variance := n * m / 12 * (total + 1 - ties/(total*(total-1)))
	return math.Erfc(math.Abs(u-n*m/2) / math.Sqrt(2*variance))
}

func median(d []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2]
}

func TestMannWhitney(t *testing.T) {
	t.Parallel()
	var x, y, later []time.Duration
	for i := range 400 {
		x = append(x, time.Duration(i*7%400))
		y = append(y, time.Duration(i*11%400))
		later = append(later, time.Duration(i*11%400+60))
	}
	if p := mannWhitney(x, y); p < 0.99 {
		t.Errorf("the same samples: p = %v", p)
	}
	if p := mannWhitney(x, later); p > 1e-5 {
		t.Errorf("shifted samples: p = %v", p)
	}
	if p := mannWhitney([]time.Duration{1, 2, 3, 4}, []time.Duration{5, 6, 7, 8}); math.Abs(p-0.0209) > 1e-3 {
		t.Errorf("p = %v, want 0.0209", p)
	}
}

// wide limits are counted and never reached.
func wideLimits() auth.Limits {
	wide := auth.Limit{Events: 1_000_000, Per: time.Hour}
	return auth.Limits{
		Failures: wide, SecondFactors: wide, AddressFailures: wide, GlobalFailures: wide, Registrations: wide,
		Mails: wide, AddressMails: wide, GlobalMails: wide,
	}
}

// timed returns a function that posts JSON and wants a status.
func (b *browser) timed(path string, status int, body func() object) func() {
	return func() {
		b.t.Helper()
		if r := b.post(path, body()); r.status != status {
			b.t.Fatalf("%s: %d %s, want %d", path, r.status, r.body, status)
		}
	}
}

func TestA1_RegisterTiming(t *testing.T) {
	s := newSite(t, auth.Config{Limits: wideLimits()})
	s.addUser(t, "ada@example.com")
	b := s.browser(t)
	n := 0
	fresh := func() object {
		n++
		return object{"email": fmt.Sprintf("u%05d@example.com", n), "password": good, "password_repeat": good}
	}
	taken := func() object {
		return object{"email": "ada@example.com", "password": good, "password_repeat": good}
	}
	timingEqual(t, "register", b.timed(api+"/register", 200, fresh), b.timed(api+"/register", 200, taken))
}

func TestA2_LoginTiming(t *testing.T) {
	s := newSite(t, auth.Config{Limits: wideLimits()})
	for _, name := range []string{"known", "right", "unverified", "disabled", "nopass"} {
		s.addUser(t, name+"@example.com")
	}
	s.exec(t, `UPDATE _user SET unverified_email = email, email = NULL WHERE email = 'unverified@example.com'`)
	s.exec(t, `UPDATE _user SET disabled = 1 WHERE email = 'disabled@example.com'`)
	s.exec(t, `UPDATE _user SET password_hash = NULL WHERE email = 'nopass@example.com'`)
	b := s.browser(t)
	login := func(name, password string) func() {
		return b.timed(api+"/login", 401, func() object { return object{"email": name + "@example.com", "password": password} })
	}
	unknown := login("unknown", "Wrong.horse.7")
	for _, name := range []string{"known", "unverified", "disabled", "nopass"} {
		timingEqual(t, "login "+name, unknown, login(name, "Wrong.horse.7"))
	}
	timingEqual(t, "login unverified with its password", unknown, login("unverified", good))
	timingEqual(t, "login disabled with its password", unknown, login("disabled", good))
}

func TestA2_RefreshTiming(t *testing.T) {
	s := newSite(t, auth.Config{Limits: wideLimits()})
	s.addUser(t, "ada@example.com")
	ended := s.login(t, "ada@example.com").RefreshToken
	b := s.browser(t)
	if r := b.post(api+"/logout", object{"refresh_token": ended}); r.status != 200 {
		t.Fatalf("logout: %d", r.status)
	}
	refresh := func(token string) func() {
		return b.timed(api+"/refresh", 401, func() object { return object{"refresh_token": token} })
	}
	unknown := []byte(ended)
	slices.Reverse(unknown)
	timingEqual(t, "refresh in a session that has ended", refresh(string(unknown)), refresh(ended))
}
