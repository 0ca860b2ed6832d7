package tlsauto

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"
	"time"
)

// files are the pairs of PEM files.
type files struct {
	m    *Manager
	all  []*filePair
	wake chan struct{} // has room for one: look now

	mu sync.Mutex // guards served and status of all; never held while anything is waited for
}

// A filePair is one of Config.Files. But for what files.mu guards, it belongs to the goroutine of run.
type filePair struct {
	Files
	watch     watch
	found     *tls.Certificate // what is in the files; nil: broken says why there is nothing
	broken    error
	keyMode   fs.FileMode
	refusal   refusal
	doubted   *tls.Certificate // the one whose doubts have been told
	nextAlarm time.Time        // when to tell that served expires

	served *tls.Certificate
	status FileStatus
}

// openFiles reads Files and ClientCAFile for the first time.
func (m *Manager) openFiles() error {
	var errs []error
	if len(m.cfg.Files) > 0 {
		m.files = &files{m: m, wake: make(chan struct{}, 1)}
		for i, f := range m.cfg.Files {
			if err := m.files.open(f); err != nil {
				place := fmt.Sprintf("Files[%d]", i)
				errs = append(errs, fmt.Errorf("%s: %w", place, err))
			}
		}
	}
	if m.cfg.ClientCAFile != "" {
		var err error
		if m.clientCAs, err = openClientCAs(m); err != nil {
			errs = append(errs, fmt.Errorf("ClientCAFile: %w", err))
		}
	}
	return errors.Join(errs...)
}

// open adds a pair, which is taken even if it is not valid now: there is nothing else.
func (f *files) open(paths Files) error {
	p := &filePair{Files: paths, watch: watch{paths: []string{paths.Cert, paths.Key}}, status: FileStatus{Path: paths.Cert}}
	if f.read(p); p.broken != nil {
		return p.broken
	}
	p.served = p.found
	if err := validAt(p.served.Leaf, f.m.cfg.Now()); err != nil {
		f.m.cfg.Logger.Error("tlsauto: a certificate is served that clients refuse", "file", p.Cert, "error", err)
	}
	f.all = append(f.all, p)
	return nil
}

// pairs returns the certificates that are served, with Leaf; nil: none.
func (f *files) pairs() []*tls.Certificate {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	certs := make([]*tls.Certificate, len(f.all))
	for i, p := range f.all {
		certs[i] = p.served
	}
	return certs
}

func (f *files) status() []CertificateStatus {
	if f == nil {
		return nil
	}
	now := f.m.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]CertificateStatus, len(f.all))
	for i, p := range f.all {
		leaf, file := p.served.Leaf, p.status
		all[i] = CertificateStatus{
			Names:     certificateNames(leaf),
			File:      &file,
			State:     Trusted,
			Serial:    leaf.SerialNumber.Text(16),
			NotBefore: leaf.NotBefore,
			NotAfter:  leaf.NotAfter,
		}
		if now.After(leaf.NotAfter) {
			all[i].State = Expired
		}
	}
	return all
}

// run watches the files until ctx ends.
func (f *files) run(ctx context.Context) {
	poll(ctx, f.m.cfg.FilesInterval, f.wake, func() (soon bool) {
		for _, p := range f.all {
			soon = f.look(p) || soon
		}
		return soon
	})
}

// wakeUp makes run look now. It does nothing without files.
func (f *files) wakeUp() {
	if f == nil {
		return
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// look reports whether to look again soon.
func (f *files) look(p *filePair) (soon bool) {
	now := f.m.now()
	f.read(p)
	before := p.served
	if !p.watch.unsettled {
		f.judge(p, now)
	}
	f.doubt(p, before, now)
	f.alarm(p, now)
	return p.watch.unsettled
}

// judge puts what was found into service, or says why not.
func (f *files) judge(p *filePair, now time.Time) {
	before := p.served
	err := p.broken
	if err == nil && p.found != before {
		err = mayReplace(p.found.Leaf, before.Leaf, now)
	}
	switch {
	case err != nil:
		f.refuse(p, err, now)
	case p.found != before:
		f.serve(p)
	default:
		f.accept(p, 0)
	}
}

// read finds what is in the files now.
func (f *files) read(p *filePair) {
	contents, err := p.watch.look()
	switch {
	case err != nil:
		p.found, p.broken = nil, err
	case contents != nil:
		p.keyMode = p.watch.infos[1].Mode().Perm()
		p.found, p.broken = parsePair(p.Files, contents[0], contents[1])
	}
}

// mayReplace returns why a certificate should not be served instead of another. When neither is valid, the new
// one is the better guess.
func mayReplace(leaf, before *x509.Certificate, now time.Time) error {
	err := validAt(leaf, now)
	switch {
	case now.After(leaf.NotAfter) && now.After(before.NotAfter):
		return nil
	case now.Before(leaf.NotBefore) && now.Before(before.NotBefore):
		return nil
	}
	return err
}

func validAt(leaf *x509.Certificate, now time.Time) error {
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate has expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate is not valid before %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// serve puts what was found into service.
func (f *files) serve(p *filePair) {
	f.mu.Lock()
	p.served = p.found
	f.mu.Unlock()
	f.accept(p, 1)
	p.nextAlarm = time.Time{}
	f.m.install()
	f.m.tell(f.event(Reloaded, p))
}

// accept notes that nothing is wrong with the files.
func (f *files) accept(p *filePair, reloads uint64) {
	p.refusal.due(nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	p.status.Reloads += reloads
	p.status.LastError = ""
}

// refuse notes that something is, for which the certificate before stays in service.
func (f *files) refuse(p *filePair, err error, now time.Time) {
	if !p.refusal.due(err) {
		return
	}
	f.mu.Lock()
	p.status.Failures++
	p.status.LastError = err.Error()
	f.mu.Unlock()
	e := f.event(ReloadFailed, p)
	e.Err = err
	if p.found != nil && now.Before(p.found.Leaf.NotBefore) {
		e.Next = p.found.Leaf.NotBefore
	}
	f.m.tell(e)
}

// doubt tells, once for each certificate, why clients may refuse it.
func (f *files) doubt(p *filePair, before *tls.Certificate, now time.Time) {
	if p.doubted == p.served {
		return
	}
	p.doubted = p.served
	doubts := chainDoubts(p.served, now)
	if p.keyMode&^0o640 != 0 && runtime.GOOS != "windows" {
		doubts = append(doubts, fmt.Errorf("others may read %s: its mode is %04o, want 0640 or less", p.Key, p.keyMode))
	}
	table := f.m.table.Load()
	if name := f.m.cfg.DefaultName; name != "" && table.named(name) == nil {
		doubts = append(doubts, fmt.Errorf("no certificate is for the default name %s", name))
	}
	for _, name := range certificateNames(before.Leaf) {
		if table.at(name) == nil {
			doubts = append(doubts, fmt.Errorf("there is no certificate for %s any more", name))
		}
	}
	for _, err := range doubts {
		e := f.event(Doubtful, p)
		e.Err = err
		f.m.tell(e)
	}
}

// alarm tells, each hour, that a certificate has less than a sixth of its life left, and when it has none.
func (f *files) alarm(p *filePair, now time.Time) {
	leaf := p.served.Leaf
	left, life := leaf.NotAfter.Sub(now), leaf.NotAfter.Sub(leaf.NotBefore)
	quiet := p.nextAlarm.Sub(now)
	if left >= life/6 || 0 < quiet && quiet <= time.Hour { // more: the clock has been set back
		return
	}
	p.nextAlarm = now.Add(time.Hour)
	if left >= 0 && left < time.Hour {
		p.nextAlarm = leaf.NotAfter.Add(1) // the first moment when it has expired
	}
	f.m.tell(f.event(Expiring, p))
}

func (f *files) event(kind EventKind, p *filePair) Event {
	leaf := p.served.Leaf
	return Event{Kind: kind, Time: f.m.now(), Names: certificateNames(leaf), Issuer: p.Cert, NotAfter: leaf.NotAfter}
}
