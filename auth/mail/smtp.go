package mail

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"strconv"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/bedplate/bedplate/auth"
)

// Encryption says how the connection to an SMTP server is protected.
type Encryption int

const (
	StartTLS    Encryption = iota // begin in the clear and require STARTTLS before anything else (RFC 3207)
	ImplicitTLS                   // TLS from the first byte (RFC 8314)
	None                          // in the clear; to a loopback host only, unless AllowPlaintext is set
)

const (
	defaultTimeout = 30 * time.Second
	quitTimeout    = 2 * time.Second
	maxAnswers     = 256 << 10 // bytes that a server may send in a session, certificates included
)

// SMTPConfig configures [NewSMTP]. Host and From are required.
type SMTPConfig struct {
	Host string // a name or an IP address, without a port
	Port int    // 0: 587, with ImplicitTLS 465

	// Encryption is not negotiable: a server that does not offer STARTTLS
	// gets no mail, except with None.
	Encryption Encryption
	// AllowPlaintext permits None to a host that is not this one. Everybody
	// on the way can then read the mails, and use the links in them.
	AllowPlaintext bool
	// TLSConfig adds to what is asked of the server's certificate, RootCAs
	// for instance. nil: the roots of the system. It must not skip the
	// verification; the server name defaults to Host, the lowest version to
	// TLS 1.2.
	TLSConfig *tls.Config

	// Username and Password sign in to the server; empty: no signing in.
	// They cannot be combined with None.
	Username string
	Password string

	From      string        // "Name <no-reply@example.com>" or the bare address
	LocalName string        // how to introduce ourselves (EHLO); "": the host's name
	Timeout   time.Duration // for the delivery of one message; 0: 30 s
}

// SMTP is an [auth.Mailer] that hands messages to an SMTP server, one
// connection for each. It holds nothing between messages and needs no Close.
type SMTP struct {
	host    string
	port    int
	from    *netmail.Address
	tls     *tls.Config // nil with None
	options []gomail.Option
	// implicit: the connection itself is TLS, rather than being upgraded.
	implicit bool
	timeout  time.Duration
}

// NewSMTP checks the configuration and reports every mistake in it. It does
// not connect.
func NewSMTP(cfg SMTPConfig) (*SMTP, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if !isHost(cfg.Host) {
		bad("the host: %q is not a name or an IP address", cfg.Host)
	}
	if cfg.Port < 0 || cfg.Port > 65535 {
		bad("the port: %d is out of range", cfg.Port)
	}
	from, err := parseFrom(cfg.From)
	if err != nil {
		bad("the sender: %w", err)
	}
	if strings.ContainsFunc(cfg.LocalName, func(r rune) bool { return r <= ' ' || r > '~' }) {
		bad("the local name: %q is not a host name", cfg.LocalName)
	}
	if cfg.Timeout < 0 {
		bad("the timeout: %v is negative", cfg.Timeout)
	}
	if (cfg.Username == "") != (cfg.Password == "") {
		bad("the user name and the password: one is missing")
	}
	switch cfg.Encryption {
	case StartTLS, ImplicitTLS:
		if cfg.TLSConfig != nil && cfg.TLSConfig.InsecureSkipVerify {
			bad("the TLS configuration: it skips the verification of the certificate (add a private one to RootCAs instead)")
		}
	case None:
		if cfg.Username != "" || cfg.Password != "" {
			bad("the password: it would be sent without encryption")
		}
		if !cfg.AllowPlaintext && !isLoopback(cfg.Host) {
			bad("the encryption: none, but %q is another host", cfg.Host)
		}
	default:
		bad("the encryption: unknown value %d", cfg.Encryption)
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("configuring SMTP: %w", errors.Join(errs...))
	}

	s := &SMTP{host: cfg.Host, port: cfg.Port, from: from, timeout: cfg.Timeout, implicit: cfg.Encryption == ImplicitTLS}
	if s.port == 0 {
		s.port = 587
		if s.implicit {
			s.port = 465
		}
	}
	if s.timeout == 0 {
		s.timeout = defaultTimeout
	}
	if cfg.Encryption != None {
		s.tls = tlsConfig(cfg)
	}
	s.options = clientOptions(cfg, s)
	if _, err := gomail.NewClient(s.host, s.options...); err != nil {
		return nil, fmt.Errorf("configuring SMTP: %w", err)
	}
	return s, nil
}

func tlsConfig(cfg SMTPConfig) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.TLSConfig != nil {
		c = cfg.TLSConfig.Clone()
		c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	}
	if c.ServerName == "" {
		c.ServerName = cfg.Host
	}
	return c
}

func clientOptions(cfg SMTPConfig, s *SMTP) []gomail.Option {
	options := []gomail.Option{
		gomail.WithPort(s.port),
		gomail.WithTimeout(2 * s.timeout), // the context of a delivery ends it earlier
		gomail.WithoutNoop(),
		gomail.WithoutRset(),
	}
	switch cfg.Encryption {
	case StartTLS:
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory), gomail.WithTLSConfig(s.tls))
	case ImplicitTLS:
		options = append(options, gomail.WithSSL(), gomail.WithTLSConfig(s.tls))
	case None:
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	}
	if cfg.LocalName != "" {
		options = append(options, gomail.WithHELO(cfg.LocalName))
	}
	if cfg.Username != "" {
		options = append(options,
			gomail.WithUsername(cfg.Username), gomail.WithPassword(cfg.Password),
			gomail.WithOpportunisticSMTPAuth(gomail.SMTPAuthSCRAMSHA256, gomail.SMTPAuthPlain, gomail.SMTPAuthLogin))
	}
	return options
}

// Send delivers the message to the server. It returns nil once the server has
// taken responsibility for it, whatever happens to the connection then. The
// error is a [*PermanentError] if the message is malformed or was refused.
func (s *SMTP) Send(ctx context.Context, m auth.Message) error {
	msg, err := compose(s.from, m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	err = s.deliver(ctx, msg)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("sending a mail by SMTP: %w", ctx.Err())
	}
	err = fmt.Errorf("sending a mail by SMTP: %w", shortError{err})
	var refused *gomail.SendError
	if errors.As(err, &refused) && aboutMessage(refused.ErrorCode()) {
		return &PermanentError{Code: refused.ErrorCode(), Err: err}
	}
	return err
}

// deliver runs one session. The connection is closed when it returns, and as
// soon as ctx is done.
func (s *SMTP) deliver(ctx context.Context, msg *gomail.Msg) error {
	var conn net.Conn
	stop := func() bool { return true }
	defer func() {
		stop()
		if conn != nil {
			conn.Close()
		}
	}()
	dial := func(ctxDial context.Context, _, _ string) (net.Conn, error) {
		raw, err := new(net.Dialer).DialContext(ctxDial, "tcp", net.JoinHostPort(s.host, strconv.Itoa(s.port)))
		if err != nil {
			return nil, err
		}
		conn = &boundedConn{Conn: raw, left: maxAnswers}
		stop = context.AfterFunc(ctx, func() { raw.Close() })
		if !s.implicit {
			return conn, nil
		}
		secure := tls.Client(conn, s.tls)
		return secure, secure.HandshakeContext(ctxDial)
	}

	// A client keeps state of its last connection, so each message has its own.
	options := append(s.options[:len(s.options):len(s.options)], gomail.WithDialContextFunc(dial))
	client, err := gomail.NewClient(s.host, options...)
	if err != nil {
		return err
	}
	session, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return err
	}
	if err := client.SendWithSMTPClient(session, msg); err != nil && !msg.IsDelivered() {
		return err
	}
	// A farewell that goes wrong must not make the caller send it twice.
	if session.UpdateDeadline(min(quitTimeout, s.timeout)) == nil {
		_ = session.Quit()
	}
	return nil
}

// aboutMessage tells a 5xx answer that concerns the message from one that asks
// for other credentials (RFC 4954 section 6).
func aboutMessage(code int) bool {
	switch code {
	case 530, 534, 535, 538:
		return false
	}
	return code >= 500 && code <= 599
}

// A boundedConn fails once the peer has sent more than it may, since the SMTP
// client reads lines of any length.
type boundedConn struct {
	net.Conn
	left int
}

func (c *boundedConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errors.New("the mail server says too much")
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

func isHost(s string) bool {
	if net.ParseIP(s) != nil {
		return true
	}
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) && !strings.ContainsAny(s, ":/@[]")
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
