package tlsauto

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// HTTPHandler answers the challenge HTTP-01, which authorities make on port 80 (RFC 8555, section 8.3),
// for the names of this server and those on demand. Without it HTTP-01 is not used: an issuer that
// has no other challenge fails.
//
// All other requests, even for challenges of which nothing is known, as those of another ACME client,
// are for next. If that is nil, clients are sent to the same address at https with status 308, on
// [Config.HTTPSPort], if the Host is a name that there is a certificate for, or will be: that is
// configured, or that OnDemand accepts, which is asked here, too. Other hosts get 421 (Misdirected
// Request), or 503 while OnDemand is busy with others, and unknown challenges 404.
func (m *Manager) HTTPHandler(next http.Handler) http.Handler {
	if m.board != nil {
		m.board.http.Store(true)
	}
	return &httpHandler{m, next}
}

type httpHandler struct {
	m    *Manager
	next http.Handler // may be nil
}

const challengePath = "/.well-known/acme-challenge/"

func (h *httpHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := hostName(r.Host)
	token, challenge := strings.CutPrefix(r.URL.Path, challengePath)
	challenge = challenge && (r.Method == http.MethodGet || r.Method == http.MethodHead)
	switch {
	case challenge && h.answer(w, r, host, token):
	case h.next != nil:
		h.next.ServeHTTP(w, r)
	case challenge:
		http.NotFound(w, r)
	default:
		h.redirect(w, r, host)
	}
}

// answer reports false, and writes nothing, if there is no answer.
func (h *httpHandler) answer(w http.ResponseWriter, r *http.Request, host, token string) bool {
	if h.m.board == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	value, reason := h.m.board.keyAuthorization(ctx, host, token)
	if reason == TooMany {
		refuseForNow(w)
		return true
	}
	if value == nil {
		return false
	}
	header := w.Header()
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Content-Length", strconv.Itoa(len(value)))
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodGet {
		_, _ = w.Write(value) // the client has left, or not
	}
	return true
}

// redirect sends a client to https. Nothing of the request decides where to but a host that is known.
func (h *httpHandler) redirect(w http.ResponseWriter, r *http.Request, host string) {
	w.Header().Set("Connection", "close") // there is nothing more to ask here
	switch h.m.refuses(r.Context(), host) {
	case "":
	case TooMany:
		refuseForNow(w)
		return
	default:
		http.Error(w, "This server does not have this host.", http.StatusMisdirectedRequest)
		return
	}
	target := url.URL{
		Scheme:     "https",
		Host:       hostPort(host, h.m.cfg.HTTPSPort),
		Path:       r.URL.Path,
		RawPath:    r.URL.RawPath,
		ForceQuery: r.URL.ForceQuery,
		RawQuery:   r.URL.RawQuery,
	}
	if !strings.HasPrefix(target.Path, "/") { // as of OPTIONS *
		target.Path, target.RawPath = "/", ""
	}
	http.Redirect(w, r, target.String(), http.StatusPermanentRedirect)
}

// refuseForNow answers when OnDemand, or the store, is asked too much to be asked for this, too.
func refuseForNow(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, "Too many requests at the same time.", http.StatusServiceUnavailable)
}

// hostPort is how a URL has a host and the port of https.
func hostPort(host string, port int) string {
	if port != 443 {
		return net.JoinHostPort(host, strconv.Itoa(port))
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// HSTS makes browsers use nothing but https with this host for maxAge, in whole seconds, from their last
// visit (RFC 6797); 0 or less makes them forget that. It is for a server that has a certificate and will
// have one for that long: nothing can be clicked away. Responses to requests that did not come by TLS, or
// that were for an address, stay as they are.
func HSTS(maxAge time.Duration, next http.Handler) http.Handler {
	value := "max-age=" + strconv.FormatInt(int64(max(maxAge, 0)/time.Second), 10)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name := hostName(r.Host); r.TLS != nil && name != "" && !isIP(name) {
			w.Header().Set("Strict-Transport-Security", value)
		}
		next.ServeHTTP(w, r)
	})
}

// addressOf returns the address that a name in in-addr.arpa or ip6.arpa stands for, as authorities use
// them for TLS-ALPN-01 (RFC 8738, section 6).
func addressOf(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		return parseReversed(rest, 4, 1, ".")
	}
	if rest, ok := strings.CutSuffix(name, ".ip6.arpa"); ok {
		return parseReversed(rest, 32, 4, ":")
	}
	return netip.Addr{}, false
}

// parseReversed parses an address of so many labels, each group of which makes a part of its usual form.
func parseReversed(labels string, count, group int, separator string) (netip.Addr, bool) {
	parts := strings.Split(labels, ".")
	if len(parts) != count {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := range parts {
		if i > 0 && i%group == 0 {
			b.WriteString(separator)
		}
		b.WriteString(parts[count-1-i])
	}
	addr, err := netip.ParseAddr(b.String())
	return addr, err == nil
}
