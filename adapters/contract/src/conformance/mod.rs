//! What every back end has to do, as tests: an adapter calls [`conformance!`](crate::conformance!) in its `tests/`.
//!
//! A check publishes, waits *within* the fixture's patience for what has to come, and fails with what a person needs to
//! know. Names are unique to a check, so that a broker that outlives it can be used again. What a back end says it
//! cannot do ([`Support::Absent`](crate::Support::Absent)) is not asked of it.

#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "these are tests, though of other crates"
)]

pub mod clocks;
pub mod competing;
pub mod declarations;
pub mod heard;
pub mod ledger;
pub mod letters;
pub mod limits;
pub mod publish_subscribe;
pub mod recorder;
pub mod sessions;
pub mod settling;
pub mod stage;
pub mod terms;
pub mod topology;
pub mod transactions;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::Backend;

/// What an adapter lends the suite.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// A back end that works; its broker may hold things of other checks.
    async fn backend(&self) -> Arc<dyn Backend>;

    /// Lets so many milliseconds pass, for the back end too.
    async fn pass(&self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// How long something may take that has to come: long enough for a busy machine.
    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }

    /// How long to wait before nothing has come: long enough for another thread.
    fn quiet(&self) -> Duration {
        Duration::from_millis(50)
    }

    /// Whether a broker of its own lies behind the back end: what becomes of a message is then told later and not by
    /// `publish` itself, and a queue of the broker's lies between a publisher and a slow consumer, who holds nobody.
    fn is_remote(&self) -> bool {
        false
    }
}

/// Makes a test of each check: `conformance!(#[tokio::test] fixture())`.
#[macro_export]
macro_rules! conformance {
    (#[$test:meta] $fixture:expr) => {
        $crate::conformance_checks! { #[$test] $fixture;
            publish_subscribe {
                each_of_three_subscribers_gets_everything_in_order
                filters_get_what_they_match_and_nothing_else
                leading_wildcards_spare_dollar_addresses
                both_spellings_are_one_address
                overlapping_filters_keep_the_publishers_order
                no_local_keeps_a_clients_own_messages_away
                nothing_is_given_before_start
                a_target_follows_the_topology
                what_has_no_credit_waits_in_order_and_blocks_nobody
                only_durable_messages_are_settled_as_published
                an_expired_message_is_not_given
                a_filter_that_was_given_up_gets_nothing_more
                a_subscription_that_is_replaced_loses_and_repeats_nothing
                a_replaced_subscription_may_settle_otherwise
                members_of_a_group_share_and_groups_do_not
                a_group_goes_with_its_last_member
                a_message_that_nobody_takes_is_unroutable
            }
            competing {
                messages_wait_for_a_first_consumer
                consumers_share_a_queue_within_their_windows
                consumers_that_settle_nothing_share_message_by_message
                one_lanes_messages_keep_their_order
                what_a_lost_lane_held_comes_again_in_its_place
                a_cancelled_consumers_deliveries_stay_unsettled
                a_consumer_that_is_replaced_loses_and_repeats_nothing
                a_group_outlives_the_replacement_of_its_only_member
                higher_priorities_come_first
                an_exclusive_consumer_is_alone
                a_standby_consumer_takes_over
                a_deadline_that_passes_gives_the_message_to_another
                a_deleted_queue_ends_its_consumers
                one_message_is_fetched_at_a_time
                a_congested_consumer_leaves_messages_in_the_queue
            }
            settling {
                runs_settle_in_any_order_and_unknown_ones_are_ignored
                a_released_message_comes_again_at_once_or_later
                what_was_given_to_nobody_comes_again_in_its_place
                a_rejected_message_goes_where_dead_letters_go
                a_dead_letter_tells_its_history
                an_expired_message_goes_where_dead_letters_go
                a_message_that_comes_back_too_often_is_dead
                recovered_deliveries_come_again
                a_word_is_told_when_the_settlement_is_safe
            }
            limits {
                a_full_queue_drops_its_head
                a_full_queue_refuses_what_comes
                publishers_are_held_above_a_sinks_mark
            }
            topology {
                exchanges_route_as_their_kinds_say
                addresses_reach_queues_by_their_bindings
                headers_decide_message_by_message
                exchanges_lead_to_exchanges_and_to_alternates
                a_queue_gets_a_message_once
                a_missing_exchange_ends_the_batch
            }
            declarations {
                declarations_must_agree
                names_and_ends_must_exist
                predeclared_exchanges_are_there_and_stay
                reserved_names_are_refused
                wrong_arguments_are_refused
                exclusive_queues_are_their_connections_own
                auto_delete_things_go_with_their_last_user
                deletion_can_be_made_to_depend_on_use
                what_is_unsettled_is_counted_and_keeps_an_empty_queue
                a_nameless_queue_gets_a_name
                an_unused_queue_expires
            }
            terms {
                a_message_is_given_out_as_often_as_its_route_says
                a_message_that_was_given_back_waits_longer_each_time
                what_was_fetched_comes_back_when_its_deadline_passes
                a_message_expires_when_its_route_says_so
                a_full_queue_does_what_its_route_says
                another_declaration_changes_what_a_queue_does
                a_route_reads_the_level_of_a_message
                a_message_is_held_back_as_long_as_it_or_its_route_says
                what_is_published_again_is_taken_and_dropped
                messages_of_one_key_go_to_one_consumer_at_a_time
                several_workers_behind_one_subscription_do_not_share_a_key
                what_was_given_to_nobody_counts_for_nothing
                lower_levels_have_their_share
            }
            transactions {
                a_commit_publishes_and_settles
                a_rollback_does_neither
                a_commit_returns_what_nobody_takes
            }
            sessions {
                a_session_gets_again_what_it_had_under_the_same_tags
                subscriptions_that_share_a_window_take_turns
                a_closed_sink_gets_nothing
            }
        }
    };
}

/// Carries out [`conformance!`](crate::conformance!).
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_checks {
    (#[$test:meta] $fixture:expr; $($room:ident { $($check:ident)* })*) => {
        $($crate::conformance_checks! { @room #[$test] $fixture; $room $($check)* })*
    };
    (@room #[$test:meta] $fixture:expr; $room:ident $($check:ident)*) => {
        mod $room {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[$test]
                async fn $check() {
                    let stage = $crate::conformance::stage::Stage::new(&$fixture, stringify!($check)).await;
                    $crate::conformance::$room::$check(&stage).await;
                    stage.close().await;
                }
            )*
        }
    };
}
