// Package tlsauto gives a server certificates that rotate by themselves: from an ACME certificate
// authority such as Let's Encrypt (RFC 8555), from PEM files that some other program renews, or from
// a development authority of its own.
//
//	m, err := tlsauto.New(tlsauto.Config{
//		Names:    []string{"example.com", "www.example.com"},
//		Email:    "admin@example.com",
//		AgreeTOS: true,
//		Store:    autocert.DirCache("certs"),
//	})
//	if err != nil {
//		return err
//	}
//	go m.Run(ctx)
//	go http.ListenAndServe(":http", m.HTTPHandler(nil))
//	srv := &http.Server{Addr: ":https", TLSConfig: m.TLSConfig()}
//	return srv.ListenAndServeTLS("", "")
//
// [Manager.Run] obtains a certificate for each name before anybody asks for it, renews it when a third
// of its life is left, or half of a short one, tries again after failures with growing pauses that restarts do not reset, and
// tells by events, log and [Manager.Status] how that goes. Handshakes only read a table in memory: they
// never order a certificate, and wait at most [Config.WaitFirst] for the first one of a name. Until
// there is one, a self-signed certificate is served, which clients that verify refuse.
//
// Several processes may share a [Store]. With one that is a [Leaser] too, such as [SQLStore], one of
// them orders, all of them serve, and each answers the challenges of the others.
//
// The package needs nothing else of Bedplate. It has no flags, no globals, and writes only through its
// Store and into the directory of a [DevCA].
package tlsauto
