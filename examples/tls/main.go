// Tls is a small HTTPS server whose certificate can be renewed under its
// clients. See README.md.
//
//	go run ./examples/tls
//	curl -k https://localhost:8443
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"

	"github.com/baton-go/baton/framework"
)

func main() {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("baton-tls-%d", os.Getuid()))
	addr := flag.String("addr", ":8443", "the address to listen on")
	cert := flag.String("cert", filepath.Join(dir, "cert.pem"), "the certificate")
	key := flag.String("key", filepath.Join(dir, "key.pem"), "its key")
	renew := flag.Bool("renew", false, "only make a self-signed certificate for localhost")
	flag.Parse()

	// Workers run main, too; one of the processes makes the files.
	_, missing := os.Stat(*cert)
	if *renew || missing != nil && filepath.Dir(*cert) == dir && framework.Role() != framework.RoleWorker {
		if err := makeCertificate(*cert, *key); err != nil {
			log.Fatal(err)
		}
		log.Printf("made %s for localhost", *cert)
	}
	if *renew {
		return
	}

	err := framework.Run(http.HandlerFunc(hello), framework.Listen("tcp", *addr), framework.TLS(*cert, *key))
	if err != nil {
		log.Print(err)
	}
	os.Exit(framework.ExitCode(err))
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "hello by %s from worker %s (master %d), session resumed: %v\n",
		r.Proto, framework.WorkerID(), os.Getppid(), r.TLS.DidResume)
}
