// Loaded into wrk, gives each connection one of CLIENTS addresses: a policy that
// goes by the client's would see a single one.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/socket.h>

int connect(int fd, const struct sockaddr *to, socklen_t length) {
	static atomic_uint n;
	int (*next)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
	if (to->sa_family == AF_INET) {
		int late = 1; // the port is chosen by the connect, when both ends are known
		struct sockaddr_in from = {.sin_family = AF_INET};
		from.sin_addr.s_addr = htonl(FIRST + atomic_fetch_add(&n, 1) % CLIENTS);
		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &late, sizeof late);
		if (bind(fd, (struct sockaddr *)&from, sizeof from)) return -1;
	}
	return next(fd, to, length);
}
