package realtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/bedplate/bedplate/internal/httpx"
	"github.com/bedplate/bedplate/sqlite"
)

// checkEvery is how often it is checked whether identities still stand.
const checkEvery = 2 * time.Second

// maxUnchecked is for how many times in a row the check may fail before
// streams that depend on it are ended.
const maxUnchecked = 3

// goodbyeTimeout is how long a stream may take for a goodbye.
const goodbyeTimeout = time.Second

// Why streams end.
var (
	errLifetime = errors.New("realtime: maximum lifetime")
	errSignOut  = errors.New("realtime: the identity has ended")
	errDrain    = errors.New("realtime: shutting down")
)

// Service serves event streams; see [New]. It is safe for concurrent use.
type Service struct {
	db      *sqlite.DB
	cfg     Config
	log     *slog.Logger
	engine  engine
	client  httpx.ClientIP
	limits  *limiter
	tickets *tickets
	trays   trays
	main    *sqlite.ChangeLog

	mu       sync.Mutex // guards what follows
	feeds    map[feedKey]*feed
	conns    map[*conn]struct{}
	draining bool
	closed   bool
	empty    sync.Cond // there are no conns any more

	quit   chan struct{}
	exited chan struct{} // the checker has ended

	closeOnce sync.Once
	closeErr  error
}

// New returns a service that follows the change logs of db. It reports all
// mistakes of cfg at once. Close ends what it runs in the background.
func New(db *sqlite.DB, cfg Config) (*Service, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Service{
		db: db, cfg: cfg, log: cfg.Logger, engine: newEngine(),
		client: httpx.ClientIP{Proxies: cfg.Proxies, Trusted: cfg.TrustedProxies},
		limits: newLimiter(cfg), tickets: newTickets(cfg.Now),
		feeds: map[feedKey]*feed{}, conns: map[*conn]struct{}{},
		quit: make(chan struct{}), exited: make(chan struct{}),
	}
	s.empty.L = &s.mu
	if s.main, err = db.ChangeLog("main"); err != nil {
		return nil, err
	}
	if err := s.main.Install(context.Background()); err != nil {
		return nil, fmt.Errorf("realtime: install the change log: %w", err)
	}
	go s.check()
	return s, nil
}

func (c Config) withDefaults() (Config, error) {
	var errs []error
	bad := func(text string) { errs = append(errs, errors.New("realtime: "+text)) }
	count := func(name string, n *int, def int) {
		if *n < 0 {
			bad(name + " is negative")
		}
		if *n == 0 {
			*n = def
		}
	}
	count("MaxStreams", &c.MaxStreams, 10_000)
	count("MaxPerUser", &c.MaxPerUser, 1000)
	count("MaxPerAddress", &c.MaxPerAddress, 2000)
	count("MaxEvent", &c.MaxEvent, 64<<10)
	count("Proxies", &c.Proxies, 0)
	if c.MaxEvent > 1<<20 {
		bad("MaxEvent is above 1 MiB")
	}
	duration := func(name string, d *time.Duration, def time.Duration) {
		if *d < 0 {
			bad(name + " is negative")
		}
		if *d == 0 {
			*d = def
		}
	}
	duration("Heartbeat", &c.Heartbeat, 15*time.Second)
	duration("WriteTimeout", &c.WriteTimeout, 10*time.Second)
	duration("Retry", &c.Retry, 2*time.Second)
	if c.MaxLifetime == 0 {
		c.MaxLifetime = time.Hour
	}
	if c.Identify == nil {
		c.Identify = func(context.Context) Identity { return Identity{} }
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, errors.Join(errs...)
}

// Streams returns how many streams are open.
func (s *Service) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// feed returns a feed, making it at first.
func (s *Service) feed(of feedKey) (*feed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return nil, ErrClosed
	}
	if f := s.feeds[of]; f != nil {
		return f, nil
	}
	log, err := s.db.ChangeLog(of.database)
	if err != nil {
		return nil, err
	}
	f := newFeed(s, log, of.filtered)
	s.feeds[of] = f
	return f, nil
}

// enter counts c among the open streams.
func (s *Service) enter(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return ErrClosed
	}
	s.conns[c] = struct{}{}
	return nil
}

func (s *Service) exit(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if len(s.conns) == 0 {
		s.empty.Broadcast()
	}
}

// Publish appends an event to a channel, as JSON, and returns when it is
// committed. Whoever listens to GET /{channel} gets it, also somebody who was
// away, for as long as the change log of the main database goes back. A
// channel's name has 1 to 128 letters, digits and characters of "_-.:" and is
// not "ticket".
func (s *Service) Publish(ctx context.Context, channel string, event any) error {
	text, err := s.event(channel, event)
	if err != nil {
		return err
	}
	return s.main.Publish(ctx, channel, text)
}

// PublishTx is [Service.Publish] as a part of tx, a transaction of the same
// database: the event is sent after its commit, and never if it is rolled
// back.
func (s *Service) PublishTx(ctx context.Context, tx *sqlite.Tx, channel string, event any) error {
	text, err := s.event(channel, event)
	if err != nil {
		return err
	}
	return s.main.PublishTx(ctx, tx, channel, text)
}

func (s *Service) event(channel string, event any) ([]byte, error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	if !channelName(channel) {
		return nil, fmt.Errorf("realtime: publish: %q is not the name of a channel", channel)
	}
	text, err := json.Marshal(event)
	if err != nil {
		return nil, fmt.Errorf("realtime: publish: %w", err)
	}
	if len(text) > s.cfg.MaxEvent {
		return nil, fmt.Errorf("realtime: publish: event has %d bytes, %d are allowed", len(text), s.cfg.MaxEvent)
	}
	return text, nil
}

func channelName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case c >= '0' && c <= '9', c|0x20 >= 'a' && c|0x20 <= 'z', c == '_', c == '-', c == '.', c == ':':
		default:
			return false
		}
	}
	return name != "" && len(name) <= 128 && name != "ticket" // has a route of its own
}

// End ends the streams whose identity matches and returns how many these are.
func (s *Service) End(match func(Identity) bool) int {
	n := 0
	for _, c := range s.all() {
		if match(c.identity) {
			c.end(errSignOut)
			n++
		}
	}
	return n
}

func (s *Service) all() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	return all
}

// lifetime returns how long a stream may last.
func (s *Service) lifetime(id Identity) time.Duration {
	d := time.Duration(math.MaxInt64)
	if most := min(s.cfg.MaxLifetime, d/2); most > 0 {
		d = most - most/5 + rand.N(most/5*2+1) //nolint:gosec // no secret
	}
	if !id.Expires.IsZero() {
		d = min(d, max(0, id.Expires.Sub(s.cfg.Now())))
	}
	return d
}

// check ends streams that nobody may hold any more.
func (s *Service) check() {
	defer close(s.exited)
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	failures := 0
	for {
		select {
		case <-s.quit:
			return
		case <-tick.C:
		}
		s.tickets.sweep()
		s.checkViews()
		if err := s.checkIdentities(); err != nil {
			failures++
			s.log.Error("check who holds streams", "error", err)
			if failures >= maxUnchecked {
				s.End(func(id Identity) bool { return id.User != "" })
			}
			continue
		}
		failures = 0
	}
}

func (s *Service) checkViews() {
	s.mu.Lock()
	feeds := make([]*feed, 0, len(s.feeds))
	for _, f := range s.feeds {
		feeds = append(feeds, f)
	}
	s.mu.Unlock()
	for _, f := range feeds {
		for _, g := range f.groups() {
			if err := recovering(g.view.Err); err != nil {
				if errors.Is(err, errPanic) {
					s.log.Error("check a view, streams are cut", "error", err)
				}
				for _, c := range f.membersOf(g) {
					c.end(err)
				}
			}
		}
	}
}

func (s *Service) checkIdentities() error {
	now := s.cfg.Now()
	var conns []*conn
	var ids []Identity
	for _, c := range s.all() {
		if e := c.identity.Expires; !e.IsZero() && !now.Before(e) {
			c.end(errSignOut)
			continue
		}
		if c.identity.User != "" {
			conns, ids = append(conns, c), append(ids, c.identity)
		}
	}
	if s.cfg.Check == nil || len(ids) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkEvery)
	defer cancel()
	stands, err := s.stands(ctx, ids)
	if err != nil {
		return err
	}
	for i, c := range conns {
		if !stands[i] {
			c.end(errSignOut)
		}
	}
	return nil
}

func (s *Service) stands(ctx context.Context, ids []Identity) (_ []bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("realtime: panic in Check: %v", p)
		}
	}()
	stands, err := s.cfg.Check(ctx, ids)
	if err == nil && len(stands) != len(ids) {
		err = fmt.Errorf("realtime: Check returned %d answers for %d identities", len(stands), len(ids))
	}
	return stands, err
}

// Drain tells all clients to come back soon and ends their streams; new ones
// are refused with status 503. It returns when all have ended, which takes
// little more than a second, unless one writes to an HTTP/2 connection that
// takes nothing (ended by [http.HTTP2Config.WriteByteTimeout]). It is for
// [http.Server.RegisterOnShutdown], since Shutdown waits for streams.
func (s *Service) Drain() {
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	for _, c := range s.all() {
		c.end(errDrain)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.conns) > 0 {
		s.empty.Wait()
	}
}

// Close drains the service and ends its background work. Handlers of the HTTP
// server may run on for a moment. It may be called more than once.
func (s *Service) Close() error {
	s.Drain()
	s.closeOnce.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Service) close() error {
	s.mu.Lock()
	s.closed = true
	feeds := make([]*feed, 0, len(s.feeds))
	for _, f := range s.feeds {
		feeds = append(feeds, f)
	}
	s.mu.Unlock()
	close(s.quit)
	<-s.exited
	var errs []error
	for _, f := range feeds {
		errs = append(errs, f.close())
	}
	return errors.Join(errs...)
}
