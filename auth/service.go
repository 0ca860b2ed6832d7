package auth

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bedplate/bedplate/auth/internal/outbox"
	"github.com/bedplate/bedplate/auth/internal/throttle"
	"github.com/bedplate/bedplate/internal/httpx"
	"github.com/bedplate/bedplate/internal/password"
	"github.com/bedplate/bedplate/internal/seal"
	"github.com/bedplate/bedplate/sqlite"
)

// A Service signs people and programs in. It is an [http.Handler] for the
// routes of the contract and safe for concurrent use. Create it with [New].
type Service struct {
	db  *sqlite.DB
	cfg Config
	log *slog.Logger
	now func() time.Time

	site      *url.URL
	key       *seal.Key
	pepper    [32]byte // of MACs over short codes
	successor [32]byte // of MACs that make refresh tokens out of their predecessors

	hasher    *password.Hasher
	policy    password.Policy
	limits    *throttle.Store
	attempts  attempts
	outbox    *outbox.Queue
	templates *templates
	client    httpx.ClientIP
	csrf      *http.CrossOriginProtection
	providers map[string]IdentityProvider
	issuers   map[string]Issuer
	routes    []route

	keys   keyring
	cache  tokenCache
	epoch  atomic.Int64 // grows with every change that may end a token
	quiet  quietLog
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// New makes the tables, reads or makes the keys and starts the worker that
// sends mails and tidies up. All mistakes of cfg are reported at once. The
// caller closes the service before it closes db.
func New(ctx context.Context, db *sqlite.DB, cfg Config) (*Service, error) {
	if db == nil {
		return nil, errors.New("auth: a database is needed")
	}
	s := &Service{db: db, attempts: newAttempts(), cache: newTokenCache(maxCachedTokens)}
	if err := s.configure(cfg); err != nil {
		return nil, err
	}
	if err := Migrate(ctx, db); err != nil {
		return nil, err
	}
	if err := s.unlock(ctx); err != nil {
		return nil, err
	}
	if err := s.loadKeys(ctx); err != nil {
		return nil, err
	}
	if err := s.sealSeeds(ctx); err != nil {
		return nil, err
	}
	s.limits = throttle.New(db, s.now, s.derive("throttle"))
	s.outbox = outbox.New(outbox.Config{DB: db, Key: s.key, Deliver: s.deliver, Now: s.now, Logger: s.log, MaxTries: mailTries})

	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	s.done.Go(func() {
		if err := s.outbox.Run(work); err != nil && work.Err() == nil {
			s.log.Error("mail worker ended", "error", err)
		}
	})
	s.done.Go(func() { s.maintain(work) })
	return s, nil
}

// configure checks cfg and makes what depends on nothing else.
func (s *Service) configure(cfg Config) error {
	errs := []error{cfg.validate()}
	var err error
	s.templates, err = parseTemplates(cfg.Templates)
	errs = append(errs, err)
	cfg.setDefaults(s.db.Path())
	s.cfg, s.log, s.now = cfg, cfg.Logger, cfg.Now
	s.hasher, err = password.NewHasher(password.Params{
		Memory: cfg.Argon2.Memory, Time: cfg.Argon2.Time, Threads: cfg.Argon2.Threads,
	}, cfg.Argon2.Slots, cfg.Argon2.Queue)
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	s.policy = password.Policy{
		MinLength: cfg.Password.MinLength, MixedCase: cfg.Password.MixedCase, Digits: cfg.Password.Digits,
		Special: cfg.Password.Special, AllowCommon: cfg.Password.AllowCommon,
	}
	s.site, _ = url.Parse(cfg.SiteURL) // validated
	s.client = httpx.ClientIP{Proxies: cfg.Proxies, Trusted: cfg.TrustedProxies}
	s.csrf = new(http.CrossOriginProtection)
	for _, o := range append([]string{cfg.SiteURL}, cfg.TrustedOrigins...) {
		if err := s.csrf.AddTrustedOrigin(o); err != nil {
			return fmt.Errorf("auth: trusted origin: %w", err)
		}
	}
	s.providers, s.issuers = map[string]IdentityProvider{}, map[string]Issuer{}
	for _, p := range cfg.Providers {
		s.providers[p.Provider().Name] = p
	}
	for _, i := range cfg.Issuers {
		s.issuers[i.Name()] = i
	}
	s.routes = s.allRoutes()
	return nil
}

// unlock takes the master key and reads the secret that is sealed under it,
// or makes both for a new database. A database that has a secret never gets a
// new key: what is sealed in it would be lost.
func (s *Service) unlock(ctx context.Context) error {
	sealed, err := s.sealedSecret(ctx)
	if err != nil {
		return fmt.Errorf("auth: read the sealed secret: %w", err)
	}
	if s.key, err = s.masterKey(sealed != nil); err != nil {
		return err
	}
	if sealed == nil {
		fresh := make([]byte, 32)
		_, _ = rand.Read(fresh) // never fails
		err := s.db.Write(ctx, sqlite.Stmt{
			SQL:  `INSERT INTO _auth_secret (id, secret) VALUES (1, ?) ON CONFLICT DO NOTHING`,
			Args: []driver.Value{s.key.Seal(secretContext, fresh)},
		})
		if err == nil {
			sealed, err = s.sealedSecret(ctx) // perhaps another process was faster
		}
		if err != nil {
			return fmt.Errorf("auth: store the sealed secret: %w", err)
		}
	}
	secret, err := s.key.Open(secretContext, sealed)
	if err != nil {
		return fmt.Errorf("auth: the database is sealed under another master key than %s: %w", s.keyName(), err)
	}
	if s.key.Outdated(sealed) {
		if err := s.reseal(ctx, sealed, secret); err != nil {
			return err
		}
	}
	s.pepper, s.successor = deriveKey(secret, "codes"), deriveKey(secret, "refresh tokens")
	return nil
}

const secretContext = "auth/secret"

func (s *Service) sealedSecret(ctx context.Context) (sealed []byte, err error) {
	err = s.db.Query(ctx, `SELECT secret FROM _auth_secret WHERE id = 1`, nil, func(v []driver.Value) error {
		sealed = blob(v[0])
		return nil
	})
	return sealed, err
}

func (s *Service) masterKey(sealed bool) (*seal.Key, error) {
	if s.cfg.Key != nil {
		key, err := seal.NewKey(s.cfg.Key)
		if err != nil {
			return nil, fmt.Errorf("auth: master key: %w", err)
		}
		return key, nil
	}
	key, err := seal.LoadFile(s.cfg.KeyFile)
	switch {
	case err == nil:
		return key, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("auth: master key: %w", err)
	case sealed:
		return nil, fmt.Errorf("auth: master key file %s is missing, and the database holds values that are sealed under it: put it back", s.cfg.KeyFile)
	}
	key, err = seal.CreateFile(s.cfg.KeyFile)
	if errors.Is(err, fs.ErrExist) { // another process was faster
		key, err = seal.LoadFile(s.cfg.KeyFile)
	}
	if err != nil {
		return nil, fmt.Errorf("auth: make the master key: %w", err)
	}
	return key, nil
}

func (s *Service) keyName() string {
	if s.cfg.Key != nil {
		return "Config.Key"
	}
	return s.cfg.KeyFile
}

// derive returns a key for one use, from the pepper.
func (s *Service) derive(use string) [32]byte { return deriveKey(s.pepper[:], use) }

func deriveKey(secret []byte, use string) [32]byte {
	key, err := hkdf.Key(sha256.New, secret, nil, "bedplate auth "+use, 32)
	if err != nil {
		panic("auth: derive a key: " + err.Error()) // the length is right
	}
	return [32]byte(key)
}

// Close waits for the workers. Mails that are not sent are sent by the next
// start.
func (s *Service) Close() error {
	s.cancel()
	s.done.Wait()
	return nil
}

// maintenance is how often the service tidies up.
const maintenance = time.Minute

// maintain removes what has expired and rotates signing keys until ctx ends.
func (s *Service) maintain(ctx context.Context) {
	for {
		if err := s.Maintain(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("auth maintenance failed", "error", err)
		}
		select {
		case <-time.After(maintenance):
		case <-ctx.Done():
			return
		}
	}
}

// Maintain removes expired sessions, tokens and limits and prepares the next
// signing key. The service does so by itself every minute.
func (s *Service) Maintain(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("auth: maintenance: panic: %v", p)
		}
	}()
	now := s.now().Unix()
	for _, sql := range []string{
		`DELETE FROM _session WHERE id IN (SELECT id FROM _session WHERE expires <= ?1 LIMIT 1000)`,
		`DELETE FROM _one_time WHERE hash IN (SELECT hash FROM _one_time WHERE expires <= ?1 LIMIT 1000)`,
		`DELETE FROM _api_key WHERE id IN (SELECT id FROM _api_key WHERE expires <= ?1 - 30 * 86400 LIMIT 1000)`,
		`DELETE FROM _known_device WHERE (user, hash) IN (SELECT user, hash FROM _known_device WHERE seen <= ?1 - 180 * 86400 LIMIT 1000)`,
	} {
		for removed := -1; removed != 0; {
			err := s.db.Update(ctx, func(tx *sqlite.Tx) error {
				res, err := tx.ExecContext(ctx, sql, now)
				if err != nil {
					return err
				}
				n, err := res.RowsAffected()
				removed = int(n)
				return err
			})
			if err != nil {
				return fmt.Errorf("auth: remove what has expired: %w", err)
			}
		}
	}
	if _, err := s.limits.Prune(ctx); err != nil {
		return fmt.Errorf("auth: remove old limits: %w", err)
	}
	return s.prepareKeys(ctx)
}

// changed makes all cached tokens be looked up again: something was revoked.
func (s *Service) changed() { s.epoch.Add(1) }
