package replicator

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// A leaseObject stands for the object in the store.
type leaseObject struct {
	mu      sync.Mutex
	lease   *litestream.Lease // nil: there is none
	damaged bool
	tag     int
	age     time.Duration
	down    error
	lose    bool // the answer to the next write
	naive   bool // it does not know conditions
	writes  int
}

func (o *leaseObject) change(fn func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fn()
}

func (o *leaseObject) put(owner string, generation int64, ttl time.Duration) {
	o.change(func() { o.set(owner, generation, ttl) })
}

func (o *leaseObject) set(owner string, generation int64, ttl time.Duration) *litestream.Lease {
	o.tag++
	o.writes++
	o.damaged = false
	o.lease = &litestream.Lease{Generation: generation, ExpiresAt: time.Now().Add(ttl), Owner: owner, ETag: strconv.Itoa(o.tag)}
	lease := *o.lease
	return &lease
}

// answer returns a lease that was written, unless the answer is lost.
func (o *leaseObject) answer(lease *litestream.Lease) (*litestream.Lease, error) {
	if o.lose {
		o.lose = false
		return nil, errors.New("the connection broke off")
	}
	return lease, nil
}

func (o *leaseObject) stands() litestream.Lease {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lease == nil {
		return litestream.Lease{}
	}
	return *o.lease
}

// A testLeaser works on a leaseObject.
type testLeaser struct {
	object *leaseObject
	owner  string
	ttl    time.Duration
}

func (*testLeaser) Type() string { return "test" }

func (l *testLeaser) ReadLease(context.Context) (*litestream.Lease, time.Duration, error) {
	o := l.object
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.down != nil:
		return nil, 0, o.down
	case o.damaged:
		return &litestream.Lease{ETag: o.lease.ETag}, o.age, ErrLeaseDamaged
	case o.lease == nil:
		return nil, 0, fs.ErrNotExist
	}
	lease := *o.lease
	return &lease, o.age, nil
}

func (l *testLeaser) AcquireLease(context.Context) (*litestream.Lease, error) {
	o := l.object
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.down != nil:
		return nil, o.down
	case o.lease != nil && o.lease.Owner != "" && !o.lease.IsExpired():
		return nil, &litestream.LeaseExistsError{Owner: o.lease.Owner}
	}
	return o.answer(o.set(l.owner, 1, l.ttl))
}

func (l *testLeaser) RenewLease(_ context.Context, held *litestream.Lease) (*litestream.Lease, error) {
	return l.replace(held, l.owner, l.ttl)
}

func (l *testLeaser) ReleaseLease(_ context.Context, held *litestream.Lease) error {
	_, err := l.replace(held, "", 0)
	return err
}

func (l *testLeaser) replace(held *litestream.Lease, owner string, ttl time.Duration) (*litestream.Lease, error) {
	o := l.object
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.down != nil:
		return nil, o.down
	case !o.naive && (o.lease == nil || o.lease.ETag != held.ETag):
		return nil, litestream.ErrLeaseNotHeld
	}
	return o.answer(o.set(owner, held.Generation, ttl))
}

const testTTL = 300 * time.Millisecond

func leaseScript(t *testing.T, o *leaseObject, owner string, takeOver bool) *script {
	t.Helper()
	s := newScript(t, emptyReplica{}, wire.Order{Owner: owner, LeaseTTL: testTTL, TakeOver: takeOver})
	_, s.gate = bound(nil)
	t.Cleanup(func() { close(s.commands) }) // what reads them ends
	s.scheme.Leaser = func(_ litestream.ReplicaClient, owner string, ttl time.Duration) (litestream.Leaser, error) {
		return &testLeaser{o, owner, ttl}, nil
	}
	return s
}

// hold acquires the lease and releases it at the end.
func hold(t *testing.T, s *script) <-chan string {
	t.Helper()
	lost, release, err := s.holdLease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return lost
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatalf("no %s", what)
		}
	}
}

func TestLeaseIsHeldAndReleased(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := &leaseObject{}
		_, release, err := leaseScript(t, o, "one", false).holdLease(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		first := o.stands()
		if first.Owner != "one" || first.Generation != 1 {
			t.Fatalf("%+v", first)
		}
		await(t, "renewal", func() bool { return o.stands().ETag != first.ETag })
		if l := o.stands(); l.Owner != "one" || l.Generation != 1 || !l.ExpiresAt.After(first.ExpiresAt) {
			t.Errorf("%+v", l)
		}
		release()
		if l := o.stands(); l.Owner != "" || l.TTL() > 0 {
			t.Errorf("released: %+v", l)
		}
		// The next one has it at once.
		began := time.Now()
		hold(t, leaseScript(t, o, "two", false))
		if l := o.stands(); l.Owner != "two" || l.Generation != 2 || time.Since(began) > testTTL {
			t.Errorf("%+v after %v", l, time.Since(began))
		}
	})
}

func TestLeaseOfLivingHolderIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for name, ahead := range map[string]time.Duration{"same clock": testTTL, "its clock is slow": -time.Hour, "its clock is fast": time.Hour} {
			o := &leaseObject{}
			o.put("one", 5, ahead)
			stop := make(chan struct{})
			var alive sync.WaitGroup
			alive.Go(func() {
				for tick := time.NewTicker(testTTL / 3); ; {
					select {
					case <-tick.C:
						o.put("one", 5, ahead)
					case <-stop:
						tick.Stop()
						return
					}
				}
			})
			s := leaseScript(t, o, "two", false)
			_, _, err := s.holdLease(t.Context())
			close(stop)
			alive.Wait()
			if codeOf(err) != wire.CodeLeased || !strings.Contains(err.Error(), "one") {
				t.Errorf("%s: %v", name, err)
			}
			e := s.await("Waiting", func(e wire.Event) bool { return e.Kind == wire.Waiting })
			if e.Code != "lease" || e.Text != "one" || e.Until.IsZero() {
				t.Errorf("%s: %+v", name, e)
			}
		}
	})
}

func TestLeaseThatIsLeftBehindIsTaken(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		expires, age time.Duration
		least, most  time.Duration
	}{
		"expires later":                {testTTL, 0, 2 * testTTL, 10 * time.Second},
		"expired, seen for the first":  {-time.Hour, 0, testTTL, leaseMargin},
		"expired, not changed of late": {-time.Hour, time.Hour, 0, testTTL},
		"from a fast clock":            {4 * testTTL, 0, deadAfter * testTTL, leaseMargin + 3*testTTL},
		"asked for more than usual":    {10 * testTTL, 0, 10 * testTTL, leaseMargin + 9*testTTL},
		"from a fast clock, long ago":  {time.Hour, time.Hour, 0, testTTL},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				o := &leaseObject{age: c.age}
				o.put("one", 5, c.expires)
				began := time.Now()
				hold(t, leaseScript(t, o, "two", false))
				if took := time.Since(began); took < c.least || took > c.most {
					t.Errorf("after %v, want %v to %v", took, c.least, c.most)
				}
				if l := o.stands(); l.Owner != "two" || l.Generation != 6 {
					t.Errorf("%+v", l)
				}
			})
		})
	}
}

func TestLeaseOfOwnIsTakenAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := &leaseObject{}
		lost := hold(t, leaseScript(t, o, "one", false))
		hold(t, leaseScript(t, o, "one", false))
		if l := o.stands(); l.Generation != 2 {
			t.Errorf("%+v", l)
		}
		if by := <-lost; by != "one" { // the process before, were it still there
			t.Errorf("lost to %q", by)
		}
	})
}

func TestLeaseIsTakenOver(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := &leaseObject{}
		lost := hold(t, leaseScript(t, o, "one", false))
		s := leaseScript(t, o, "two", true)
		if done := s.lease(t.Context()); done.Error != "" {
			t.Fatal(done.Error)
		}
		if l := o.stands(); l.Owner != "two" || l.Generation != 2 {
			t.Errorf("%+v", l)
		}
		if by := <-lost; by != "two" {
			t.Errorf("lost to %q", by)
		}
		if l := o.stands(); l.Owner != "two" {
			t.Errorf("not left alone: %+v", l)
		}
	})
}

func TestLeaseSurvivesTrouble(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]func(o *leaseObject){
		"the answer is lost": func(o *leaseObject) { o.lose = true },
		"it is damaged":      func(o *leaseObject) { o.damaged = true; o.lease.ETag = "damaged" },
		"it is deleted":      func(o *leaseObject) { o.lease = nil },
		"the store is down":  func(o *leaseObject) { o.down = errors.New("down") },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				o := &leaseObject{}
				lost := hold(t, leaseScript(t, o, "one", false))
				o.change(func() { trouble(o) })
				pause(t.Context(), 2*testTTL)
				var writes int
				o.change(func() {
					o.down = nil
					writes = o.writes
				})
				await(t, "renewals", func() bool {
					select {
					case by := <-lost:
						t.Fatalf("lost to %q", by)
					default:
					}
					o.mu.Lock()
					defer o.mu.Unlock()
					return o.writes > writes+1 && o.lease != nil && !o.damaged && o.lease.Owner == "one" && !o.lease.IsExpired()
				})
			})
		})
	}
}

// Who was away for long learns that the lease is somebody else's, also when that one has ended.
func TestLeaseLostWhileAway(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for owner, want := range map[string]string{"two": "two", "": "another machine"} {
			o := &leaseObject{}
			lost := hold(t, leaseScript(t, o, "one", false))
			o.change(func() { o.down = errors.New("down") })
			pause(t.Context(), testTTL)
			o.change(func() {
				o.set(owner, 2, time.Hour)
				o.down = nil
			})
			if by := <-lost; by != want {
				t.Errorf("lost to %q, want %q", by, want)
			}
		}
	})
}

func TestDamagedLease(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := &leaseObject{}
		o.put("one", 5, time.Hour)
		o.damaged = true
		ctx, cancel := context.WithTimeout(t.Context(), testTTL)
		defer cancel()
		s := leaseScript(t, o, "two", false)
		if _, _, err := s.holdLease(ctx); err == nil || codeOf(err) == wire.CodeLeased || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%v", err)
		}
		if e := s.await("Waiting", func(e wire.Event) bool { return e.Kind == wire.Waiting }); !strings.Contains(e.Text, "damaged") {
			t.Errorf("%+v", e)
		}
		if done := leaseScript(t, o, "two", true).lease(t.Context()); done.Error != "" {
			t.Error(done.Error)
		}
		if l := o.stands(); l.Owner != "two" || l.Generation == 0 {
			t.Errorf("%+v", l)
		}
	})
}

// A damaged lease that nobody repairs is taken, also if it changes meanwhile, as the end of a
// request does that.
func TestDamagedLeaseIsLeftBehind(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := &leaseObject{}
		o.put("one", 5, time.Hour)
		o.damaged = true
		acquired := make(chan error, 1)
		s := leaseScript(t, o, "two", false)
		go func() {
			_, release, err := s.holdLease(context.Background())
			if err == nil {
				defer release()
			}
			acquired <- err
		}()
		s.await("Waiting", func(e wire.Event) bool { return e.Kind == wire.Waiting })
		o.change(func() { o.lease.ETag = "other" })
		if err := <-acquired; err != nil {
			t.Error(err)
		}

		// But not from under a holder who is there.
		o = &leaseObject{}
		o.put("one", 5, time.Hour)
		o.damaged = true
		s = leaseScript(t, o, "two", false)
		go func() {
			_, _, err := s.holdLease(context.Background())
			acquired <- err
		}()
		s.await("Waiting", func(e wire.Event) bool { return e.Kind == wire.Waiting })
		o.put("one", 5, time.Hour)
		s.await("Waiting", func(e wire.Event) bool { return e.Kind == wire.Waiting && e.Text == "one" })
		o.put("one", 5, time.Hour)
		if err := <-acquired; codeOf(err) != wire.CodeLeased {
			t.Error(err)
		}
	})
}

func TestLeaseNeedsConditions(t *testing.T) {
	t.Parallel()
	o := &leaseObject{naive: true}
	if _, _, err := leaseScript(t, o, "one", false).holdLease(t.Context()); codeOf(err) != wire.CodeConfig {
		t.Errorf("%v", err)
	}
}

func TestLeaseOfUnreachableStore(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := &leaseObject{down: errors.New("down")}
		s := leaseScript(t, o, "one", false)
		if done := s.lease(t.Context()); !strings.Contains(done.Error, "down") {
			t.Errorf("%+v", done)
		}
		noted := make(chan error, 1000)
		go func() {
			_, release, err := s.holdLeaseNoting(context.Background(), func(err error) { noted <- err })
			if err != nil {
				t.Error(err)
			}
			release()
			close(noted)
		}()
		if err := <-noted; err == nil || !strings.Contains(err.Error(), "down") {
			t.Error(err)
		}
		o.change(func() { o.down = nil })
		var last error
		for err := range noted {
			last = err
		}
		if last != nil {
			t.Error(last)
		}
	})
}

// A database that another machine has replicated for meanwhile is not replicated over that, until
// it is restored.
func TestLeaseOfAnotherMachineBetween(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := &leaseObject{}
		dirs := map[string]string{"one": t.TempDir(), "two": t.TempDir()}
		begin := func(owner string, change func(*wire.Order)) (func(), error) {
			s := leaseScript(t, o, owner, false)
			s.order.Mode, s.order.Dir, s.order.URL = wire.Replicate, dirs[owner], "s3://bucket/app"
			if change != nil {
				change(&s.order)
			}
			if s.order.Mode == wire.Lease {
				if done := s.lease(t.Context()); done.Error != "" {
					t.Fatal(done.Error)
				}
				return nil, nil
			}
			_, release, err := s.holdLease(t.Context())
			if codeOf(err) == wire.CodeOtherOwner {
				s.await("Refused", func(e wire.Event) bool { return e.Kind == wire.Refused && e.Code == wire.CodeOtherOwner })
			} else if err == nil { // and Litestream begins
				if err := os.MkdirAll(stateDir(s.order), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			return release, err
		}
		run := func(owner string) {
			t.Helper()
			release, err := begin(owner, nil)
			if err != nil {
				t.Fatal(owner, err)
			}
			release()
		}
		refused := func(owner string) {
			t.Helper()
			if _, err := begin(owner, nil); codeOf(err) != wire.CodeOtherOwner {
				t.Fatal(owner, err)
			}
		}
		forRestore := func(o *wire.Order) { o.Mode = wire.Lease }
		run("one")
		run("one")
		_, _ = begin("one", forRestore) // which fails, or changes nothing
		run("one")
		_, _ = begin("two", forRestore)
		run("two")
		refused("one")
		run("two")
		_, _ = begin("one", forRestore)
		refused("one") // the restore has failed
		_, _ = begin("one", forRestore)
		if err := os.RemoveAll(filepath.Join(dirs["one"], "litestream")); err != nil { // it has not
			t.Fatal(err)
		}
		run("one")
		refused("two")
		release, err := begin("two", func(o *wire.Order) { o.Adopt = true })
		if err != nil {
			t.Fatal(err)
		}
		release()
		run("two")
		// In another place nobody else was.
		release, err = begin("one", func(o *wire.Order) { o.URL = "s3://bucket/other" })
		if err != nil {
			t.Fatal(err)
		}
		release()
	})
}

// A process that was killed between acquiring a lease and noting that goes on.
func TestLeaseOfKilledProcess(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		o := &leaseObject{}
		dir := t.TempDir()
		start := func() (*script, func(), error) {
			s := leaseScript(t, o, "one", false)
			s.order.Mode, s.order.Dir = wire.Replicate, dir
			_, release, err := s.holdLease(t.Context())
			return s, release, err
		}
		s, release, err := start()
		if err != nil {
			t.Fatal(err)
		}
		release()
		if err := os.MkdirAll(stateDir(s.order), 0o700); err != nil {
			t.Fatal(err)
		}
		h, err := s.newHolder(0)
		if err != nil {
			t.Fatal(err)
		}
		now, err := h.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.replace(t.Context(), now); err != nil { // and no more
			t.Fatal(err)
		}
		if _, release, err = start(); err != nil {
			t.Fatal(err)
		}
		release()
	})
}
