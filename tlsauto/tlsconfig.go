package tlsauto

import (
	"crypto/tls"

	"golang.org/x/crypto/acme"
)

// TLSConfig returns a configuration for a server: TLS 1.2 and later, HTTP/2 and HTTP/1.1, the challenge
// TLS-ALPN-01, and what Config says of clients' certificates. It is the caller's own, and may be changed
// before the first handshake, but for GetCertificate, GetConfigForClient, ClientAuth and ClientCAs. With
// ClientCAFile, what is changed in a clone of it does not count.
func (m *Manager) TLSConfig() *tls.Config {
	config := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1", acme.ALPNProto},
		GetCertificate: m.GetCertificate,
	}
	m.demandClients(config)
	if m.board != nil || m.clientCAs != nil {
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			return m.configFor(hello, config), nil
		}
	}
	return config
}

// configFor returns the configuration for one handshake; nil: the usual one.
func (m *Manager) configFor(hello *tls.ClientHelloInfo, usual *tls.Config) *tls.Config {
	challenge := m.board != nil && isChallenge(hello)
	if !challenge && m.clientCAs == nil {
		return nil
	}
	// The clone has the keys of the usual one for session tickets. A session whose client was verified
	// by an authority that is gone is not resumed: crypto/tls looks into ClientCAs then, too.
	config := usual.Clone()
	config.GetConfigForClient = nil
	m.demandClients(config)
	if challenge {
		// Whatever the caller has made of them. What is asked of clients stays: this is no way around it.
		config.NextProtos = []string{acme.ALPNProto}
		config.GetCertificate = m.GetCertificate
		config.SessionTicketsDisabled = true // the validation is of the certificate
	}
	return config
}

// demandClients sets what is asked of clients, as it is now.
func (m *Manager) demandClients(config *tls.Config) {
	if m.clientCAs != nil {
		config.ClientAuth = m.cfg.ClientAuth
		config.ClientCAs = m.clientCAs.pool.Load()
	}
}
