#![allow(warnings, clippy::all)]
use margay_store::*; use margay_model::*;
fn main(){ let path=std::env::args().nth(1).unwrap();
 let conf: serde_json::Value = serde_json::json!({"datastore_type":"sqlite","store_path":path});
 let cfg=margay_datastore::Config::from_cni(conf.as_object().unwrap(), &|n| std::env::var(n).ok()).unwrap();
 let s=margay_datastore::Datastore::open(&cfg).unwrap();
 let rt=tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
 rt.block_on(async{ let mut b=Batch::new();
  for (k,v) in [("clusterinformations/default",r#"{"kind":"ClusterInformation","apiVersion":"projectcalico.org/v3","metadata":{"name":"default","creationTimestamp":null},"spec":{"clusterGUID":"x","datastoreReady":true}}"#),
   ("ippools/p4",r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"p4","creationTimestamp":null},"spec":{"cidr":"192.168.0.0/16","blockSize":26}}"#),
   ("ippools/p6",r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"p6","creationTimestamp":null},"spec":{"cidr":"fd00:10::/64","blockSize":122}}"#),
   ("nodes/n1",r#"{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"n1","creationTimestamp":null},"spec":{},"status":{}}"#)] {
   b.push(Write::put(Key::parse(&format!("/calico/resources/v3/projectcalico.org/{k}")).unwrap(), v.as_bytes().to_vec())); }
  println!("{:?}", s.commit(&b).await);
 }); }
