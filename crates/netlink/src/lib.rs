//! The kernel's side: network namespaces, rtnetlink, interface settings; applies the plans of endpoint and route.
