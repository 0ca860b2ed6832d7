package realtime_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/realtime"
)

// full checks that a request is refused because there are too many streams.
func (s *site) full(t testing.TB, headers ...string) {
	t.Helper()
	resp, _ := s.refused(t, allNotes, headers...)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%v: %s, Retry-After %q", headers, resp.Status, resp.Header.Get("Retry-After"))
	}
}

func TestH6_StreamsAreCapped(t *testing.T) {
	t.Parallel()
	ann, bob := []string{"X-User", "ann"}, []string{"X-User", "bob"}
	from := func(address string) []string { return []string{"X-Forwarded-For", address} }
	proxied := func(cfg realtime.Config) realtime.Config { cfg.Proxies = 1; return cfg }
	for name, c := range map[string]struct {
		cfg     realtime.Config
		two     [2][]string // two requests that fill it up
		refused [][]string
		others  [][]string // whom that does not affect
	}{
		"in all":             {realtime.Config{MaxStreams: 2}, [2][]string{nil, ann}, [][]string{nil, ann, bob}, nil},
		"per user":           {realtime.Config{MaxPerUser: 2}, [2][]string{ann, ann}, [][]string{ann}, [][]string{bob, nil, nil, nil}},
		"per address":        {realtime.Config{MaxPerAddress: 2}, [2][]string{ann, nil}, [][]string{bob, nil, from("192.0.2.1")}, nil},
		"per IPv4 address":   {proxied(realtime.Config{MaxPerAddress: 2}), [2][]string{from("192.0.2.1"), from("9.9.9.9, ::ffff:192.0.2.1")}, [][]string{from("192.0.2.1"), from("192.0.2.9, 192.0.2.1")}, [][]string{from("192.0.2.2"), from("192.0.2.1, 198.51.100.1")}},
		"per IPv6 network":   {proxied(realtime.Config{MaxPerAddress: 2}), [2][]string{from("2001:db8:0:1::1"), from("2001:db8:0:1:ffff::2")}, [][]string{from("2001:db8:0:1::3")}, [][]string{from("2001:db8:0:2::1")}},
		"proxy not trusted":  {realtime.Config{MaxPerAddress: 2, Proxies: 1, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, [2][]string{from("192.0.2.1"), from("192.0.2.2")}, [][]string{from("192.0.2.3")}, nil},
		"all limits default": {realtime.Config{}, [2][]string{nil, nil}, nil, [][]string{nil, ann, bob}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.cfg.Identify = identify
			s := newSite(t, c.cfg)
			first, second := s.open(t, allNotes, c.two[0]...), s.open(t, oneNote, c.two[1]...)
			for _, headers := range c.refused {
				s.full(t, headers...)
			}
			for _, headers := range c.others {
				s.open(t, allNotes, headers...).close()
			}
			s.exec(t, "INSERT INTO note VALUES (1, 1)")
			first.next(t)
			second.next(t)
			// A refused request takes no place, one that has ended frees it.
			first.close()
			for _, headers := range c.refused {
				var st *stream
				waitUntil(t, func() bool {
					resp := s.get(t, allNotes, headers...)
					if resp.StatusCode != http.StatusOK {
						_ = resp.Body.Close()
						return false
					}
					st = newStream(t, resp)
					return true
				})
				s.full(t, headers...)
				st.close()
			}
		})
	}
}

// TestH6_ManyAtOnce: many requests at the same time get as many streams as are
// allowed.
func TestH6_ManyAtOnce(t *testing.T) {
	t.Parallel()
	const most, all = 20, 200
	s := newSite(t, realtime.Config{MaxPerAddress: most})
	var streams, refused atomic.Int64
	var wg sync.WaitGroup
	for range all {
		wg.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+allNotes, nil)
			if err != nil {
				t.Error(err)
				return
			}
			resp, err := s.srv.Client().Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = resp.Body.Close() })
			switch resp.StatusCode {
			case http.StatusOK:
				streams.Add(1)
			case http.StatusServiceUnavailable:
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	if streams.Load() != most || refused.Load() != all-most {
		t.Errorf("%d streams, %d refused", streams.Load(), refused.Load())
	}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	s := newSite(t, realtime.Config{Accept: acceptAll, Identify: identify})
	for _, c := range []struct{ path, allow string }{{allNotes, "GET"}, {oneNote, "GET"}, {news, "GET"}, {"/api/realtime/v1/ticket", "POST"}} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X"} {
			if method == c.allow {
				continue
			}
			resp := s.do(t, method, c.path, "X-User", "ann")
			if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != c.allow {
				t.Errorf("%s %s: %s, Allow %q", method, c.path, resp.Status, resp.Header.Get("Allow"))
			}
		}
	}
}

func TestNewRefusesBadConfig(t *testing.T) {
	t.Parallel()
	_, err := realtime.New(sqlitetest.Open(t, ""), realtime.Config{
		MaxStreams: -1, MaxPerUser: -1, MaxPerAddress: -1, MaxEvent: -1, Proxies: -1, Heartbeat: -1, WriteTimeout: -1,
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{"MaxStreams", "MaxPerUser", "MaxPerAddress", "MaxEvent", "Proxies", "Heartbeat", "WriteTimeout"} {
		if !strings.Contains(err.Error(), name+" ") {
			t.Errorf("%s is not in the error:\n%v", name, err)
		}
	}
	if _, err := realtime.New(sqlitetest.Open(t, ""), realtime.Config{MaxEvent: 1<<20 + 1}); err == nil {
		t.Error("a MaxEvent that the log does not take")
	}
}

// ticketSite is a site where only those who are signed in get streams.
func ticketSite(t *testing.T, cfg realtime.Config) *site {
	cfg.Identify = identify
	apis := views{"notes": {table: "note", sees: seesMember}}
	cfg.Subscribe = func(r *http.Request, api, record string) (*realtime.Subscription, error) {
		if userOf(r.Context()) == "" {
			return nil, &realtime.Error{Status: http.StatusForbidden}
		}
		return apis.subscribe(r, api, record)
	}
	s := newSite(t, cfg)
	s.exec(t, "INSERT INTO member VALUES ('ann')")
	return s
}

func (s *site) ticket(t testing.TB, user string) (ticket string, status int) {
	t.Helper()
	resp := s.do(t, http.MethodPost, "/api/realtime/v1/ticket", "X-User", user)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", resp.StatusCode
	}
	if got := resp.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control: %s", got)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type: %s", got)
	}
	var answer map[string]string
	if err := json.Unmarshal(body, &answer); err != nil || len(answer) != 1 || len(answer["ticket"]) < 20 {
		t.Fatalf("%s, %v", body, err)
	}
	return answer["ticket"], resp.StatusCode
}

// TestH5_Tickets: a ticket is for one stream, soon, of whom it was issued to.
func TestH5_Tickets(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64 // of the clock
	s := ticketSite(t, realtime.Config{Now: func() time.Time { return time.Unix(1e9, ahead.Load()) }})
	invalid := func(how, ticket string) {
		t.Helper()
		resp, body := s.refused(t, allNotes+"?ticket="+ticket)
		if resp.StatusCode != http.StatusUnauthorized || body != "Invalid ticket" {
			t.Errorf("%s: %s %s", how, resp.Status, body)
		}
	}
	if resp, _ := s.refused(t, allNotes); resp.StatusCode != http.StatusForbidden {
		t.Fatalf("without a ticket: %s", resp.Status)
	}
	if _, status := s.ticket(t, ""); status != http.StatusUnauthorized {
		t.Errorf("of somebody anonymous: %d", status)
	}

	ticket, _ := s.ticket(t, "ann")
	other, _ := s.ticket(t, "ann")
	if ticket == other {
		t.Error("two tickets are the same")
	}
	invalid("guessed", "x")
	invalid("changed", ticket[:len(ticket)-1]+"_")
	st := s.open(t, allNotes+"?ticket="+ticket)
	s.exec(t, "INSERT INTO note VALUES (1, 1)")
	st.want(t, `{"Insert":{"id":1,"n":1},"seq":1}`)
	invalid("used twice", ticket)

	// It is used up even when there is no stream for it.
	if resp, _ := s.refused(t, "/api/records/v1/none/subscribe/*?ticket="+other); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("of an unknown API: %s", resp.Status)
	}
	invalid("used for nothing", other)

	soon, _ := s.ticket(t, "ann")
	late, _ := s.ticket(t, "ann")
	ahead.Store(int64(30*time.Second) - 1)
	s.open(t, allNotes+"?ticket="+soon)
	ahead.Store(int64(30 * time.Second))
	invalid("after 30 s", late)
	invalid("after 30 s, again", late)

	// Whoever shows it, it is for whom it was issued to.
	mine, _ := s.ticket(t, "ann")
	st = s.open(t, allNotes+"?ticket="+mine, "X-User", "eve")
	s.exec(t, "UPDATE note SET n = 2")
	st.want(t, `{"Update":{"id":1,"n":2},"seq":1}`)
}

func TestH5_TicketsAreBounded(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	s := ticketSite(t, realtime.Config{Now: func() time.Time { return time.Unix(1e9, ahead.Load()) }})
	n := 0
	for {
		_, status := s.ticket(t, "ann")
		if status == http.StatusServiceUnavailable {
			break
		}
		if n++; n > 1000 {
			t.Fatal("there is no end to it")
		}
	}
	if _, status := s.ticket(t, "bob"); status != http.StatusOK {
		t.Errorf("of another user: %d", status)
	}
	ahead.Store(int64(30 * time.Second))
	waitUntil(t, func() bool { _, status := s.ticket(t, "ann"); return status == http.StatusOK })
}

// TestH5_TicketAfterSignOut: a ticket is worth nothing when whom it is of has
// signed out, or when that cannot be told.
func TestH5_TicketAfterSignOut(t *testing.T) {
	t.Parallel()
	for name, check := range map[string]func([]realtime.Identity) ([]bool, error){
		"signed out": func(ids []realtime.Identity) ([]bool, error) { return make([]bool, len(ids)), nil },
		"error":      func([]realtime.Identity) ([]bool, error) { return []bool{true}, errors.New("no database") },
		"panic":      func([]realtime.Identity) ([]bool, error) { panic("oops") },
		"no answer":  func([]realtime.Identity) ([]bool, error) { return nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out atomic.Bool
			s := ticketSite(t, realtime.Config{Check: func(_ context.Context, ids []realtime.Identity) ([]bool, error) {
				if out.Load() {
					return check(ids)
				}
				return []bool{true}, nil
			}})
			before, _ := s.ticket(t, "ann")
			after, _ := s.ticket(t, "ann")
			s.open(t, allNotes+"?ticket="+before).close()
			waitUntil(t, func() bool { return s.svc.Streams() == 0 })
			out.Store(true)
			if resp, _ := s.refused(t, allNotes+"?ticket="+after); resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s", resp.Status)
			}
		})
	}
}

// TestH5_TicketIsUsedOnce: of many who show it at the same time, one gets a
// stream.
func TestH5_TicketIsUsedOnce(t *testing.T) {
	t.Parallel()
	s := ticketSite(t, realtime.Config{})
	for range 5 {
		ticket, _ := s.ticket(t, "ann")
		var got [20]int
		var wg sync.WaitGroup
		for i := range got {
			wg.Go(func() {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+allNotes+"?ticket="+ticket, nil)
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := s.srv.Client().Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				got[i] = resp.StatusCode
				_ = resp.Body.Close()
			})
		}
		wg.Wait()
		n := 0
		for _, status := range got {
			if status == http.StatusOK {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d streams: %v", n, got)
		}
	}
}
