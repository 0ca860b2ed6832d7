package tlsauto

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
)

// accountKey is where an issuer's part of the store has the account.
const accountKey = "acme_account"

// An accountRecord is what is stored of an account. One that has no URL is not registered, as far as
// is known: doing so again with the same key does no harm.
type accountRecord struct {
	Key   string `json:"key"` // PEM, PKCS #8
	URL   string `json:"url,omitempty"`
	Email string `json:"email,omitempty"`

	signer crypto.Signer
}

// accounts finds or registers the account of an issuer, one order at a time, so that orders which begin
// together do not register one each. Processes that share a store may do so when they start for the
// first time; the account of one of them remains.
type accounts struct {
	gate  gate
	known *accountRecord // what the store had last; behind the gate
}

// open returns a client for the account that the store has, or for a new one. A record that is damaged,
// or cannot be read, is no reason to register again: authorities allow few new accounts, and rights may
// hang on the old one.
func (a *accounts) open(ctx context.Context, d *Directory, l *link, order *Order) (*acme.Client, error) {
	if err := a.gate.enter(ctx); err != nil {
		return nil, fmt.Errorf("wait for the account: %w", err)
	}
	defer a.gate.leave()

	record, err := a.find(ctx, order)
	if err != nil {
		return nil, err
	}
	client := newClient(d, l, record.signer, acme.KeyID(record.URL))
	dir, err := client.Discover(ctx)
	if err != nil {
		return nil, issueError(ctx, "read the directory "+d.url(), err)
	}
	if record.URL != "" && (d.Email == "" || record.Email == d.Email) {
		return client, nil
	}

	contact := &acme.Account{}
	if d.Email != "" {
		contact.Contact = []string{"mailto:" + d.Email}
	}
	if record.URL == "" {
		if dir.ExternalAccountRequired && d.EABKeyID == "" {
			return nil, errors.New("register an account: the authority demands EABKeyID and EABKey")
		}
		contact.ExternalAccountBinding = d.binding()
		_, err := client.Register(ctx, contact, acme.AcceptTOS)
		exists := errors.Is(err, acme.ErrAccountAlreadyExists)
		if err != nil && !exists {
			return nil, issueError(ctx, "register an account", err)
		}
		record.URL = string(client.KID)
		if !exists {
			record.Email = d.Email
		}
	}
	if d.Email != "" && record.Email != d.Email {
		if _, err := client.UpdateReg(ctx, contact); err != nil { // certificates come all the same
			order.Logger.WarnContext(ctx, "tlsauto: the account's email address could not be changed",
				"directory", d.url(), "error", issueError(ctx, "update the account", err))
		} else {
			record.Email = d.Email
		}
	}
	if err := record.save(ctx, order.Store); err != nil { // next time it is found by its key
		order.Logger.WarnContext(ctx, "tlsauto: the account could not be stored", "directory", d.url(), "error", err)
	}
	return client, nil
}

// find returns the account that the store has, or a new one if there is none: who deletes an account
// wants another. When the store fails, it is the last that was found, as renewals must not have to wait
// for the store.
func (a *accounts) find(ctx context.Context, order *Order) (*accountRecord, error) {
	record, err := loadAccount(ctx, order.Store)
	if errors.Is(err, ErrNotFound) {
		// The key is stored before it is used: an account whose key is lost cannot be used again.
		record, err = newAccount(ctx, order.Store)
	}
	switch {
	case err == nil:
		a.known = record
		return record, nil
	case a.known != nil && ctx.Err() == nil:
		order.Logger.WarnContext(ctx, "tlsauto: the store fails, and the account in memory is used", "error", err)
		return a.known, nil
	}
	return nil, err
}

// forget makes the next order register the account again, with its key: the authority does not know it.
func (a *accounts) forget(ctx context.Context, order *Order) error {
	if err := a.gate.enter(ctx); err != nil {
		return err
	}
	defer a.gate.leave()
	record, err := a.find(ctx, order)
	if err != nil {
		return err
	}
	record.URL, record.Email = "", ""
	return record.save(ctx, order.Store)
}

func (d *Directory) binding() *acme.ExternalAccountBinding {
	if d.EABKeyID == "" {
		return nil
	}
	return &acme.ExternalAccountBinding{KID: d.EABKeyID, Key: d.EABKey}
}

func newClient(d *Directory, l *link, key crypto.Signer, account acme.KeyID) *acme.Client {
	return &acme.Client{
		Key:          key,
		KID:          account,
		HTTPClient:   l.client,
		DirectoryURL: d.url(),
		UserAgent:    userAgent,
		RetryBackoff: badNonceBackoff,
	}
}

// badNonceBackoff repeats requests whose nonce was refused (RFC 8555, section 6.5), which is the only
// reason why acme.Client asks about a status of 400 to 428. All else is for the Manager to try again.
func badNonceBackoff(n int, _ *http.Request, res *http.Response) time.Duration {
	if n > 5 || res.StatusCode < 400 || res.StatusCode >= http.StatusTooManyRequests {
		return 0
	}
	return 25 * time.Millisecond << n
}

func newAccount(ctx context.Context, store Store) (*accountRecord, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the account's key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make the account's key: %w", err)
	}
	record := &accountRecord{Key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), signer: key}
	return record, record.save(ctx, store)
}

func loadAccount(ctx context.Context, store Store) (*accountRecord, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	value, err := store.Get(ctx, accountKey)
	if err != nil {
		return nil, fmt.Errorf("read the account: %w", err)
	}
	record := &accountRecord{}
	if json.Unmarshal(value, record) != nil { // whose error may show a part of it
		return nil, errDamagedAccount
	}
	block, _ := pem.Decode([]byte(record.Key))
	if block == nil {
		return nil, errDamagedAccount
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errDamagedAccount
	}
	signer, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errDamagedAccount
	}
	record.signer = signer
	return record, nil
}

var errDamagedAccount = fmt.Errorf("read the account: the value of %s in the store is damaged; when it is deleted, a new account is registered", accountKey)

func (r *accountRecord) save(ctx context.Context, store Store) error {
	value, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("store the account: %w", err)
	}
	if err := store.Put(ctx, accountKey, value); err != nil {
		return fmt.Errorf("store the account: %w", err)
	}
	return nil
}

// A gate lets one goroutine through at a time. The zero value is ready for use. Unlike with a mutex,
// waiting ends with a context.
type gate struct {
	once sync.Once
	in   chan struct{}
}

func (g *gate) enter(ctx context.Context) error {
	g.once.Do(func() { g.in = make(chan struct{}, 1) })
	select {
	case g.in <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (g *gate) leave() { <-g.in }
