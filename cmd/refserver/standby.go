package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bedplate/bedplate/internal/httpx"
)

// standbyCommand has the flags of the server that it may become.
type standbyCommand struct{ serveCommand }

// Run follows the replicas until p.ctx ends, or it is promoted and serves. Where it was promoted
// before, it serves at once.
func (c *standbyCommand) Run(p *program) error {
	conf, err := c.settings()
	if err != nil {
		return err
	}
	defer conf.outlastHangups()()
	log := logger(p.stderr, slog.LevelInfo)
	ctx, fence := context.WithCancelCause(p.ctx)
	defer fence(nil)
	if !conf.replicated() {
		return errors.New("a standby needs a replica to follow: --replica-url, or backup.replica.url in the configuration file")
	}
	if err := conf.haveKey(); err != nil {
		return err
	}
	b, err := conf.newBackups(log, fence)
	if err != nil {
		return err
	}
	if err := conf.makeDirectories(); err != nil {
		return err
	}
	defer b.close()
	if err := b.hold(); err != nil {
		return err
	}
	if err := b.recall(); err != nil {
		return err
	}
	if err := b.follow(); err != nil {
		return err
	}
	if b.mode == modeStandby {
		if promoted, err := b.standBy(ctx); err != nil || !promoted {
			return err
		}
	}
	return fenced(ctx, c.serve(ctx, p, conf, b))
}

// haveKey refuses to stand by without the master key: a server could not be made of that.
func (conf *config) haveKey() error {
	if conf.Auth == nil && conf.TLS.Mode != modeACME {
		return nil
	}
	info, err := os.Stat(conf.keyFile())
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", conf.keyFile())
	}
	if err != nil {
		return fmt.Errorf("the master key is not in the replica: copy it here from the server: %w", err)
	}
	return nil
}

// recall finds the databases that are no copies any more, since an earlier standby was promoted.
func (b *backups) recall() error {
	var names []string
	err := readSmall(b.conf.promotedFile(), &names, os.Geteuid(), root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read what was promoted: %w", err)
	}
	for i := range b.databases {
		d := &b.databases[i]
		info, err := os.Stat(b.conf.databaseFile(d.name))
		d.promoted = err == nil && info.Size() > 0 && slices.Contains(names, d.name)
	}
	return b.remember(func(d backedUp) bool { return d.promoted })
}

// remember writes for recall which databases are promoted, or being promoted.
func (b *backups) remember(promoted func(backedUp) bool) error {
	var names []string
	for _, d := range b.databases {
		if promoted(d) {
			names = append(names, d.name)
		}
	}
	if names == nil {
		return removeFile(b.conf.promotedFile())
	}
	return replaceSmall(b.conf.promotedFile(), names)
}

// promotedFile names the databases that standbys have become.
func (conf *config) promotedFile() string { return filepath.Join(conf.backupDir(), "promoted") }

// follow begins to follow the databases that are not promoted. If all are, this is a server.
func (b *backups) follow() error {
	b.mode = modeServer
	for i := range b.databases {
		d := &b.databases[i]
		if d.promoted {
			continue
		}
		b.mode = modeStandby
		path := b.conf.databaseFile(d.name)
		s, err := d.replica.Follow(path)
		if errors.Is(err, fs.ErrExist) {
			err = fmt.Errorf("there is a database already: %s; start the server, not a standby, or move the file away if another machine has taken over", path)
		}
		if err != nil {
			return fmt.Errorf("database %q: %w", d.name, err)
		}
		d.standby = s
	}
	if err := b.open(); err != nil {
		return err
	}
	return b.conf.withdraw() // of an order that nobody has waited for
}

// standBy answers probes and waits for an order to promote the standby. Certificates that are kept in the
// database are not there yet: then it answers by HTTP.
func (b *backups) standBy(ctx context.Context) (promoted bool, err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", b.conf.Listen)
	if err != nil {
		return false, err
	}
	// The server will listen on the same port.
	host, _, _ := net.SplitHostPort(b.conf.Listen)
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	b.conf.Listen = net.JoinHostPort(host, port)
	srv := &http.Server{
		Handler: httpx.Quiet(b.probes()), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 120 * time.Second,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(b.log.Handler(), slog.LevelDebug),
	}
	scheme, serve := "http", srv.Serve
	if b.conf.TLS.Mode == modeFiles || b.conf.TLS.Mode == modeSelfSigned {
		secured, err := b.conf.openTLS(ctx, b.log, nil, nil)
		if err != nil {
			return false, errors.Join(err, listener.Close())
		}
		defer secured.close() //nolint:errcheck // without a database and another listener there is nothing to fail
		secured.secure(srv)
		scheme, serve = "https", func(l net.Listener) error { return srv.ServeTLS(l, "", "") }
	}
	ended := make(chan error, 1)
	go func() { ended <- serve(listener) }()
	defer func() {
		err = errors.Join(err, srv.Close())
		if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}()
	b.log.Info("standing by", "url", scheme+"://"+listener.Addr().String(), "data_dir", b.conf.DataDir)

	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if b.obey(ctx) {
				return true, nil
			}
		case e := <-ended:
			ended <- http.ErrServerClosed
			return false, e
		case <-ctx.Done():
			return false, nil
		}
	}
}

// lookEvery is how often a standby looks for an order, and who gave it for an answer.
const lookEvery = 250 * time.Millisecond

// probes are what a standby serves.
func (b *backups) probes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { health(w, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { health(w, errors.New("standby")) })
	mux.HandleFunc("GET /status.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(b.progress()) // the client is gone if this fails
	})
	return mux
}

// progress is what of the status anybody may know.
func (b *backups) progress() any {
	type database struct {
		Name        string    `json:"name"`
		Promoted    bool      `json:"promoted,omitempty"`
		Ready       bool      `json:"ready"`
		TXID        uint64    `json:"txid"`
		ReplicaTXID uint64    `json:"replica_txid"`
		Heard       time.Time `json:"heard,omitzero"`
		Well        bool      `json:"well"`
	}
	all := []database{}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.databases {
		if d.promoted {
			all = append(all, database{Name: d.name, Promoted: true, Ready: true, Well: true})
			continue
		}
		s := d.standby.Status()
		all = append(all, database{d.name, false, s.Ready, s.TXID, s.ReplicaTXID, s.Heard, s.Error == ""})
	}
	return map[string]any{"mode": modeStandby, "databases": all}
}

// An order asks a standby to become the server.
type order struct {
	ID    string `json:"id"`
	Force bool   `json:"force"`
}

// obey promotes the standby if there is an order, and reports whether it is one no more.
func (b *backups) obey(ctx context.Context) bool {
	var o order
	err := readSmall(b.conf.orderFile(), &o, os.Geteuid())
	if errors.Is(err, fs.ErrNotExist) {
		b.told = ""
		return false
	}
	if len(o.ID) > maxName {
		o.ID, err = "", errors.New("the ID of the order is too long")
	}
	if err = errors.Join(err, b.conf.withdraw()); err != nil {
		if err.Error() != b.told { // what cannot be removed is seen again and again
			b.told = err.Error()
			b.log.Error("an order is refused", "error", err)
			b.set(func() { b.promotion = &promotion{ID: o.ID, Error: err.Error()} })
		}
		return false
	}
	b.log.Info("being promoted", "force", o.Force)
	b.set(func() { b.promotion = &promotion{ID: o.ID} })
	if err := b.promote(ctx, o.Force); err != nil {
		b.log.Error("not promoted", "error", err)
		b.set(func() { b.promotion = &promotion{ID: o.ID, Error: err.Error()} })
		return false
	}
	b.set(func() { b.mode = modeServer })
	return true
}

// promote makes databases of all copies that are none yet. After an error some may be.
func (b *backups) promote(ctx context.Context, force bool) error {
	// If the process is killed meanwhile, it is known whose files those are that are there.
	if err := b.remember(func(backedUp) bool { return true }); err != nil {
		return err
	}
	errs := make([]error, len(b.databases))
	var work sync.WaitGroup
	for i, d := range b.databases {
		if d.promoted {
			continue
		}
		work.Go(func() {
			if err := d.standby.Promote(ctx, force, b.conf.checkCopy(d.name)); err != nil {
				errs[i] = fmt.Errorf("database %q: %w", d.name, err)
			}
		})
	}
	work.Wait()
	var done []string
	b.set(func() {
		for i := range b.databases {
			if b.databases[i].promoted = errs[i] == nil; errs[i] == nil {
				done = append(done, b.databases[i].name)
			}
		}
	})
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	if len(done) > 0 {
		err = errors.Join(err, fmt.Errorf("promoted, and kept for when that succeeds for all: %s", strings.Join(done, ", ")))
	}
	return errors.Join(err, b.remember(func(d backedUp) bool { return d.promoted }))
}

// orderFile is where a standby looks for an order.
func (conf *config) orderFile() string { return filepath.Join(conf.backupDir(), "promote") }

func (conf *config) withdraw() error { return removeFile(conf.orderFile()) }

// promoteCommand tells the standby of a data directory to become the server.
type promoteCommand struct {
	where
	Force bool `help:"Take the replica from a server that may still run. What that acknowledges meanwhile is lost."`
}

func (c *promoteCommand) Run(p *program) error {
	conf, err := c.load()
	if err != nil {
		return err
	}
	s, err := conf.readStatus()
	if err == nil {
		err = s.gone(time.Now())
	}
	if err == nil && s.Mode != modeStandby {
		err = errors.New("there is a server")
	}
	if err != nil {
		return fmt.Errorf("no standby runs with the data directory %s (%w): where one runs, name its --data-dir; "+
			"without one, start the server, which restores what is missing from the replica", conf.DataDir, err)
	}
	o := order{ID: rand.Text(), Force: c.Force}
	if err := replaceSmall(conf.orderFile(), o); err != nil {
		return err
	}
	return c.wait(p, conf, o)
}

// wait returns when the order has been carried out.
func (c *promoteCommand) wait(p *program, conf *config, o order) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-p.ctx.Done():
			return errors.Join(p.ctx.Err(), conf.withdraw())
		}
		s, err := conf.readStatus()
		if err != nil {
			return err
		}
		switch answer := s.Promotion; {
		case answer != nil && answer.ID == o.ID && answer.Error != "":
			return fmt.Errorf("not promoted, the standby goes on: %s", answer.Error)
		case answer != nil && answer.ID == o.ID && answer.Done:
			fmt.Fprintln(p.stdout, "Promoted: it serves now, and when it is started again, be it as a standby or as a server. "+
				"Send the clients there, and see to it that the old server does not start again.")
			return nil
		}
		if err := s.gone(time.Now()); err != nil {
			return errors.Join(fmt.Errorf("not promoted: %w; see its log", err), conf.withdraw())
		}
	}
}
